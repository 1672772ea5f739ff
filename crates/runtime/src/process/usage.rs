//! What a process and its descendants use, by what the system says of each.

use std::fs;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

/// Most processes that are looked at.
const PROCESSES_MAX: u64 = 1_024;

/// What processes use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Processor time so far, that of ended descendants included; to 10 ms.
    pub(super) cpu: Duration,
    /// Memory that is theirs, without pages of files; what forks share counts for each.
    pub(super) memory_bytes: u64,
    /// How many there are.
    pub(super) processes: u64,
}

/// What a process and its descendants use now; nothing if it has ended.
pub(super) fn of_tree(pid: i32) -> Used {
    let mut sum = Used::default();
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        let Some(used) = of(pid) else { continue };
        sum.cpu += used.cpu;
        sum.memory_bytes += used.memory_bytes;
        sum.processes += 1;
        if sum.processes + (left.len() as u64) < PROCESSES_MAX {
            left.extend(children(pid));
        }
    }
    sum
}

fn of(pid: i32) -> Option<Used> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(Used {
        cpu: cpu_in(&stat)?,
        memory_bytes: pages_in(&statm)?.saturating_mul(page_size() as u64),
        processes: 1,
    })
}

/// User and system time of a process and of the children that it waited for.
fn cpu_in(stat: &str) -> Option<Duration> {
    // The name may hold anything, also brackets and blanks.
    let after_name = stat.rsplit_once(')')?.1;
    let ticks: u64 = after_name
        .split_ascii_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    Some(Duration::from_secs_f64(
        ticks as f64 / clock_ticks_per_second().max(1) as f64,
    ))
}

/// When a process began, in ticks since the machine did: with its number it names a process for good.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Resident pages that are no file's.
fn pages_in(statm: &str) -> Option<u64> {
    let mut fields = statm.split_ascii_whitespace().skip(1);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (resident, of_files) = (next()?, next()?);
    Some(resident.saturating_sub(of_files))
}

fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_read_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 0 0 100 20 3 4 20 0 1 0 555 0 0";
        assert_eq!(
            cpu_in(stat),
            Some(Duration::from_secs_f64(127.0 / clock_ticks_per_second() as f64))
        );
        assert_eq!(pages_in("900 300 120 4 0 80 0"), Some(180));
        assert_eq!(pages_in("900"), None);
    }

    #[test]
    fn this_process_uses_something_and_a_gone_one_nothing() {
        let me = of_tree(i32::try_from(std::process::id()).unwrap());
        assert!(me.memory_bytes > 0 && me.processes >= 1);
        assert_eq!(of_tree(i32::MAX), Used::default());
        assert!(start_time(std::process::id()).is_some());
    }
}
