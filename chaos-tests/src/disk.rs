//! Disks of nodes' own, which are in memory and can be made too small.

use std::path::Path;
use std::process::Command;

/// Mounts one, or mounts it anew with other options; false where that cannot be.
pub(crate) fn mount(at: &Path, options: &str) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "skein-chaos"]).arg(at);
    mount.status().is_ok_and(|status| status.success())
}

/// Leaves at most so many bytes free on one; false where that cannot be, as when more than that was written
/// meanwhile.
pub(crate) fn leave_free(at: &Path, bytes: u64) -> bool {
    rustix::fs::statvfs(at).is_ok_and(|stat| {
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        mount(at, &format!("remount,size={}", used + bytes))
    })
}
