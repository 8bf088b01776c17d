//! What operators watch on the process and its disk, read when somebody asks for the metrics.

use std::fs;
use std::path::PathBuf;

use metrics::{Gauge, Unit, describe_gauge, gauge};
use rustix::process::{Resource, getrlimit};
use storage::disk::{Disk, RealDisk};

use crate::clock::now_ms;
use crate::config::Config;
use crate::tls;

/// See the module.
pub struct ProcessMetrics {
    resident: Gauge,
    open_files: Gauge,
    free: Gauge,
    data: PathBuf,
}

impl ProcessMetrics {
    /// Registers the metrics of a process that has just started with this configuration.
    pub fn register(config: &Config) -> Self {
        let count = Unit::Count;
        describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Resident memory");
        describe_gauge!("process_open_fds", count, "Open file descriptors");
        describe_gauge!("process_max_fds", count, "Open file descriptors that are allowed");
        describe_gauge!(
            "process_start_time_seconds",
            Unit::Seconds,
            "Unix time at which the process started"
        );
        describe_gauge!(
            "storage_free_bytes",
            Unit::Bytes,
            "Bytes that can still be written to the file system of the data folder"
        );
        describe_gauge!(
            "tls_certificate_expiry_seconds",
            Unit::Seconds,
            "Unix time at which a certificate expires, the node's or its issuer's"
        );
        describe_gauge!(
            "tls_ocsp_response_expiry_seconds",
            Unit::Seconds,
            "Unix time at which what is shown of a responder is outdated"
        );
        gauge!("process_start_time_seconds").set(now_ms() as f64 / 1000.0);
        if let Some(most) = getrlimit(Resource::Nofile).current {
            gauge!("process_max_fds").set(most as f64);
        }
        let end_of = |file: &Option<PathBuf>| Some(*tls::validity(file.as_deref()?).ok()?.end());
        if let Some(end) = end_of(&config.tls.certificate) {
            tls::set_expiry(end);
        }
        if let Some(end) = end_of(&config.tls.issuer_certificate) {
            gauge!("tls_certificate_expiry_seconds", "certificate" => "issuer").set(end as f64);
        }
        Self {
            resident: gauge!("process_resident_memory_bytes"),
            open_files: gauge!("process_open_fds"),
            free: gauge!("storage_free_bytes"),
            data: config.data.clone(),
        }
    }

    /// Brings the gauges up to date; one that cannot be read keeps its value.
    pub fn read(&self) {
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes as f64);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            self.open_files.set(open.count() as f64);
        }
        if let Ok(free) = RealDisk.free_bytes(&self.data) {
            self.free.set(free as f64);
        }
    }
}

/// `VmRSS` of the process.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
