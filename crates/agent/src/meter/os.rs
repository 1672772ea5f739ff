//! How the machine fares, from the operating system: CPU and memory in use, of the container's where there is one.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

/// CPU and memory in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// CPU in use since the last sample, in % of what there is (0 in the first).
    pub cpu_percent: f64,
    /// Memory in use, in % of what there is.
    pub memory_percent: f64,
}

/// Samples the machine; each sample covers the time since the one before.
#[derive(Debug)]
pub struct Sampler {
    before: Option<CpuTime>,
}

/// CPU time used, and what there was of it.
#[derive(Clone, Copy, Debug)]
enum CpuTime {
    /// Of the machine: jiffies busy and in all.
    Machine { busy: u64, all: u64 },
    /// Of a cgroup with a quota: time used, and when it was read.
    Group { used_us: u64, cpus: f64, at: Instant },
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampler {
    /// A sampler that begins now.
    pub fn new() -> Self {
        Self {
            before: cpu_time().ok(),
        }
    }

    /// The machine's state since the last call.
    ///
    /// # Errors
    /// Where the system's files can't be read.
    pub fn sample(&mut self) -> io::Result<Sample> {
        let now = cpu_time()?;
        let cpu_percent = self.before.map_or(0.0, |before| percent_between(before, now));
        self.before = Some(now);
        Ok(Sample {
            cpu_percent,
            memory_percent: memory_percent()?,
        })
    }
}

fn percent_between(before: CpuTime, now: CpuTime) -> f64 {
    let share = match (before, now) {
        (
            CpuTime::Machine { busy, all },
            CpuTime::Machine {
                busy: busy_now,
                all: all_now,
            },
        ) => {
            let all = all_now.saturating_sub(all);
            if all == 0 {
                0.0
            } else {
                busy_now.saturating_sub(busy) as f64 / all as f64
            }
        }
        (
            CpuTime::Group { used_us, at, .. },
            CpuTime::Group {
                used_us: used_now,
                cpus,
                at: now,
            },
        ) => {
            let there_was_us = now.duration_since(at).as_secs_f64() * 1e6 * cpus;
            if there_was_us <= 0.0 {
                0.0
            } else {
                used_now.saturating_sub(used_us) as f64 / there_was_us
            }
        }
        // The quota came or went in between.
        _ => 0.0,
    };
    (share * 100.0).clamp(0.0, 100.0)
}

/// The process's own cgroup, as containers see it.
const GROUP: &str = "/sys/fs/cgroup";

fn cpu_time() -> io::Result<CpuTime> {
    if let Some(cpus) = group_cpus(Path::new(GROUP))
        && let Some(used_us) = group_cpu_used_us(Path::new(GROUP))
    {
        let at = Instant::now();
        return Ok(CpuTime::Group { used_us, cpus, at });
    }
    parse_stat(&fs::read_to_string("/proc/stat")?)
        .ok_or_else(|| io::Error::other("/proc/stat has no cpu line"))
}

/// CPUs that the group may use, where it has a quota.
fn group_cpus(group: &Path) -> Option<f64> {
    let max = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = max.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn group_cpu_used_us(group: &Path) -> Option<u64> {
    let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?
        .trim()
        .parse()
        .ok()
}

/// The first line: `cpu user nice system idle iowait irq softirq steal …`, in jiffies.
fn parse_stat(stat: &str) -> Option<CpuTime> {
    let times: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let (idle, iowait) = (*times.get(3)?, times.get(4).copied().unwrap_or(0));
    let all: u64 = times.iter().sum();
    Some(CpuTime::Machine {
        busy: all.saturating_sub(idle + iowait),
        all,
    })
}

fn memory_percent() -> io::Result<f64> {
    let (available, total) = parse_meminfo(&fs::read_to_string("/proc/meminfo")?)
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal and MemAvailable"))?;
    let machine = 100.0 * (1.0 - available as f64 / total as f64);
    Ok(group_memory_percent(Path::new(GROUP))
        .unwrap_or(machine)
        .clamp(0.0, 100.0))
}

/// In KiB: available and in all.
fn parse_meminfo(meminfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()
    };
    let total = field("MemTotal").filter(|total| *total > 0)?;
    Some((field("MemAvailable")?, total))
}

/// Of the group's limit, where it has one; pages of files that can go at any time are not in use.
fn group_memory_percent(group: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let max: u64 = read("memory.max")?.trim().parse().ok().filter(|max| *max > 0)?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    let inactive_file: u64 = read("memory.stat")?
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "))?
        .trim()
        .parse()
        .ok()?;
    Some(100.0 * current.saturating_sub(inactive_file) as f64 / max as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_and_meminfo_are_read_as_the_kernel_writes_them() {
        let before = parse_stat("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3 4\n").unwrap();
        let now = parse_stat("cpu  150 0 125 865 10 0 0 50 0 0\n").unwrap();
        assert!((percent_between(before, now) - 62.5).abs() < 1e-9);
        let meminfo = "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    250 kB\n";
        assert_eq!(parse_meminfo(meminfo), Some((250, 1000)));
        assert!(parse_stat("intr 5").is_none());
        assert!(parse_meminfo("MemTotal: 0 kB\nMemAvailable: 0 kB").is_none());
    }

    #[test]
    fn this_machine_can_be_sampled() {
        let mut sampler = Sampler::new();
        let sample = sampler.sample().unwrap();
        assert!((0.0..=100.0).contains(&sample.cpu_percent));
        assert!(sample.memory_percent > 0.0 && sample.memory_percent < 100.0);
    }
}
