//! Finds the binary under test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `SKEIN_BIN`, else what cargo has built, a release build first; built now when there is none.
///
/// # Panics
/// When it does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = env::var_os("SKEIN_BIN") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it lies in the repo");
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), |dir| root.join(dir));
        let built = ["release", "debug"].map(|profile| target.join(profile).join("skein"));
        if let Some(path) = built.iter().find(|path| path.is_file()) {
            return path.clone();
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--package", "node", "--bin", "skein"])
            .current_dir(root)
            .status()
            .expect("cargo can be run");
        assert!(status.success(), "no skein in {}, and it does not build", target.display());
        built[1].clone()
    })
}
