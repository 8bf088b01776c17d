//! What a comparison runs on, for those who read it elsewhere.

use std::fs;

/// Processor, cores, memory and kernel, as far as the system says.
pub(super) fn described() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    describe(
        &read("/proc/cpuinfo"),
        &read("/proc/meminfo"),
        &read("/proc/sys/kernel/osrelease"),
        cores,
    )
}

fn describe(cpuinfo: &str, meminfo: &str, kernel: &str, cores: usize) -> String {
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = after(cpuinfo, "model name").unwrap_or_else(|| "an unknown processor".into());
    let kilobytes = after(meminfo, "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or_default();
    let kernel = kernel.trim();
    let memory = (kilobytes as f64 / f64::from(1 << 20)).round();
    format!("{processor}, {cores} cores, {memory} GiB, Linux {kernel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_described_as_far_as_it_says() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t: a b\n";
        let found = describe(cpuinfo, "MemTotal:       25165824 kB\n", "6.1.0\n", 2);
        assert_eq!(found, "Some CPU @ 2.0GHz, 2 cores, 24 GiB, Linux 6.1.0");
        assert_eq!(describe("", "", "", 1), "an unknown processor, 1 cores, 0 GiB, Linux ");
    }
}
