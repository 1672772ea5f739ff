//! What the operating system says of this process, under the names that Prometheus's own clients use.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::exposition::Readings;

/// Clock ticks a second in `/proc`: fixed in Linux's interface to programs, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a page as `/proc/self/statm` counts them, on the platforms that are built for.
const PAGE_BYTES: f64 = 4_096.0;

/// CPU time, memory and open files of this process. What can't be read is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut readings = Readings::new(encoder);
        if let Some(seconds) = cpu_seconds() {
            readings.counter("process_cpu_seconds", "CPU time used, in s", seconds)?;
        }
        if let Some(bytes) = resident_bytes() {
            readings.gauge("process_resident_memory_bytes", "Memory in use, in bytes", bytes)?;
        }
        if let Some(files) = open_files() {
            readings.gauge("process_open_fds", "Open files", files)?;
        }
        Ok(())
    }
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may hold anything, so fields are counted from the last parenthesis on: utime is the 14th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

fn open_files() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn this_process_uses_cpu_memory_and_files() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let text = crate::exposition::text(&registry);
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            let line = line.unwrap_or_else(|| panic!("{name} is missing: {text}"));
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(text.ends_with("# EOF\n"));
    }
}
