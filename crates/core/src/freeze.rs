//! Freeze windows: when no rollout starts in an environment, by a schedule as cron writes it, in UTC.
//!
//! A schedule is data of the environment, and whether it covers a moment is arithmetic on that moment, so that the
//! core needs no calendar and no clock. Fields are minute, hour, day of the month, month and day of the week; each is
//! `*`, or a list of numbers, names, ranges and steps, as in `0 16 * * FRI` or `*/30 8-18 1,15 DEC *`. Where day of
//! the month and day of the week both name something, either is enough (POSIX crontab).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::EnvName;
use crate::time::{Millis, WallTime};

/// Most windows of an environment.
pub const FREEZES_MAX: usize = 16;
/// Longest window.
pub const FREEZE_LASTS_MAX: Millis = Millis::from_secs(31 * 24 * 3_600);
/// Shortest window: the schedule's own precision.
const FREEZE_LASTS_MIN: Millis = Millis::from_secs(60);
/// Longest name or reason of a window, in characters.
const TEXT_LEN_MAX: usize = 200;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;
const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// When no rollout starts in an environment. Running ones go on; aborts and rollbacks always do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeWindow {
    /// What it is called.
    pub name: String,
    /// When it begins.
    pub starts: Schedule,
    /// How long it lasts each time.
    pub lasts: Millis,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

impl FreezeWindow {
    /// When the window that covers this moment ends; `None` where none does.
    pub fn until(&self, now: WallTime) -> Option<WallTime> {
        let start = self.starts.last(now, self.lasts)?;
        let until = start + self.lasts;
        (now < until).then_some(until)
    }

    /// What is wrong with it, each with its key.
    pub(crate) fn validate(&self, faults: &mut Vec<String>) {
        if self.name.is_empty() || self.name.chars().count() > TEXT_LEN_MAX {
            faults.push(format!("freezes: a name must be 1 to {TEXT_LEN_MAX} characters"));
        }
        if self.reason.chars().count() > TEXT_LEN_MAX {
            faults.push(format!(
                "freezes: the reason of {:?} must be at most {TEXT_LEN_MAX} characters",
                self.name
            ));
        }
        if !(FREEZE_LASTS_MIN..=FREEZE_LASTS_MAX).contains(&self.lasts) {
            faults.push(format!(
                "freezes: {:?} must last {FREEZE_LASTS_MIN} to {FREEZE_LASTS_MAX}, not {}",
                self.name, self.lasts
            ));
        }
    }
}

/// A freeze that a deployment met: decided once, so that a clock that jumps changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Where.
    pub environment: EnvName,
    /// Which window.
    pub window: String,
    /// Why it is there.
    pub reason: String,
    /// When it ends.
    pub until: WallTime,
}

/// Minutes at which something begins.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    text: String,
    /// A set bit for each minute of the hour, hour of the day, day of the month, month, and day of the week.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether day of the month, and day of the week, name something.
    by_day: bool,
    by_weekday: bool,
}

impl Schedule {
    /// The last beginning at or before a moment and less than `within` before it.
    fn last(&self, now: WallTime, within: Millis) -> Option<WallTime> {
        let now_minute = now.0 / MINUTE_MS;
        let today = now_minute / DAY_MINUTES;
        let first_day = (now - within).0 / MINUTE_MS / DAY_MINUTES;
        // Bounded by FREEZE_LASTS_MAX; a day that has a beginning ends the search but for the day that has begun.
        for day in (first_day..=today).rev() {
            if !self.covers_day(day) {
                continue;
            }
            let latest = if day == today {
                now_minute % DAY_MINUTES
            } else {
                DAY_MINUTES - 1
            };
            if let Some(minute) = self.last_of_day(latest) {
                return Some(WallTime((day * DAY_MINUTES + minute) * MINUTE_MS));
            }
        }
        None
    }

    fn last_of_day(&self, latest: u64) -> Option<u64> {
        let minutes = (0..=latest).rev();
        let mut begins =
            minutes.filter(|minute| has(self.hours, minute / 60) && has(self.minutes, minute % 60));
        begins.next()
    }

    fn covers_day(&self, day: u64) -> bool {
        let (month, of_month) = month_and_day(day);
        // The first day of 1970 was a Thursday.
        let (by_day, by_weekday) = (has(self.days, of_month), has(self.weekdays, (day + 4) % 7));
        let day_fits = match (self.by_day, self.by_weekday) {
            (true, true) => by_day || by_weekday,
            _ => by_day && by_weekday,
        };
        has(self.months, month) && day_fits
    }
}

fn has(set: u64, bit: u64) -> bool {
    set & (1 << bit) != 0
}

/// Month (1 to 12) and day (1 to 31) of a day since 1970, by the proleptic Gregorian calendar: the inverse of Howard
/// Hinnant's `days_from_civil`, with years that begin in March.
fn month_and_day(day: u64) -> (u64, u64) {
    let of_era = (day + 719_468) % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, of_month)
}

/// What is wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no schedule: {fault}; write minute, hour, day, month and weekday, such as 0 16 * * FRI")]
pub struct InvalidSchedule {
    text: String,
    fault: String,
}

impl FromStr for Schedule {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let shown: String = text.chars().take(TEXT_LEN_MAX).collect();
        let invalid = |fault: String| InvalidSchedule {
            text: shown.clone(),
            fault,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(invalid(format!("it has {} fields, not 5", fields.len())));
        };
        if text.chars().count() > TEXT_LEN_MAX {
            return Err(invalid(format!("it is longer than {TEXT_LEN_MAX} characters")));
        }
        let weekday = parse_field(weekdays, "weekday", (0, 7), &WEEKDAYS, 0).map_err(invalid)?;
        Ok(Self {
            minutes: parse_field(minutes, "minute", (0, 59), &[], 0).map_err(invalid)?,
            hours: parse_field(hours, "hour", (0, 23), &[], 0).map_err(invalid)?,
            days: parse_field(days, "day", (1, 31), &[], 0).map_err(invalid)?,
            months: parse_field(months, "month", (1, 12), &MONTHS, 1).map_err(invalid)?,
            // 7 is Sunday, too.
            weekdays: weekday | (weekday >> 7 & 1),
            by_day: !days.starts_with('*'),
            by_weekday: !weekdays.starts_with('*'),
            text: fields.join(" "),
        })
    }
}

fn parse_field(
    text: &str,
    what: &str,
    (min, max): (u64, u64),
    names: &[&str],
    first: u64,
) -> Result<u64, String> {
    let number = |text: &str| -> Result<u64, String> {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = match named {
            Some(place) => Some(place as u64 + first),
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            None => None,
        };
        let within = number.filter(|number| (min..=max).contains(number));
        within.ok_or_else(|| format!("{what} {text:?} is not {min} to {max}"))
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse::<u64>().ok().filter(|step| (1..=max).contains(step));
                (
                    range,
                    step.ok_or_else(|| format!("the step of {what} {part:?} is not 1 to {max}"))?,
                )
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((from, to)) => (number(from)?, number(to)?),
            // With a step a lone number goes on to the end, as in 5/15.
            None if part.contains('/') => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(format!("{what} {range:?} ends before it begins"));
        }
        let step = usize::try_from(step).map_err(|_| format!("the step of {what} is too large"))?;
        for bit in (from..=to).step_by(step) {
            set |= 1 << bit;
        }
    }
    Ok(set)
}

impl TryFrom<String> for Schedule {
    type Error = InvalidSchedule;
    fn try_from(text: String) -> Result<Self, InvalidSchedule> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.text
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    /// Tuesday, 2026-11-24 00:00 UTC.
    const TUESDAY: u64 = 1_795_478_400_000;

    fn window(starts: &str, hours: u64) -> FreezeWindow {
        FreezeWindow {
            name: "w".to_owned(),
            starts: starts.parse().unwrap(),
            lasts: Millis(hours * HOUR),
            reason: String::new(),
        }
    }

    fn until(window: &FreezeWindow, hours_after_tuesday: u64) -> Option<u64> {
        let until = window.until(WallTime(TUESDAY + hours_after_tuesday * HOUR))?;
        Some((until.0 - TUESDAY) / HOUR)
    }

    #[test]
    fn a_weekend_is_frozen_from_friday_afternoon_to_monday_morning() {
        let weekend = window("0 16 * * FRI", 64);
        let friday = 3 * 24;
        assert_eq!(until(&weekend, 12), None);
        assert_eq!(until(&weekend, friday + 15), None);
        assert_eq!(until(&weekend, friday + 16), Some(friday + 80));
        assert_eq!(until(&weekend, friday + 79), Some(friday + 80));
        assert_eq!(until(&weekend, friday + 80), None, "its end is not in it");
    }

    #[test]
    fn windows_that_overlap_end_with_the_last() {
        let nightly = window("0 20 * * *", 30);
        assert_eq!(until(&nightly, 21), Some(50));
        assert_eq!(until(&nightly, 45), Some(74));
    }

    #[test]
    fn days_of_month_and_week_are_either_where_both_are_named() {
        let both = window("0 0 13 * FRI", 24);
        let friday = 3 * 24;
        assert!(until(&both, friday).is_some(), "a Friday that is no 13th");
        // 2026-12-13 is a Sunday, 19 days on.
        assert!(until(&both, 19 * 24).is_some());
        assert!(until(&both, 20 * 24).is_none());
        let december = window("0 0 24-31 DEC *", 24);
        assert!(until(&december, 30 * 24).is_some(), "2026-12-24");
        assert!(until(&december, 0).is_none(), "2026-11-24");
    }

    #[test]
    fn every_day_of_four_centuries_has_its_date() {
        let (mut month, mut of_month, mut year) = (1, 1, 1970);
        for day in 0..146_097 {
            assert_eq!(month_and_day(day), (month, of_month), "day {day}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            of_month += 1;
            if of_month > length {
                (of_month, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "-1 * * * *",
            "* * * FRI *",
        ] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
        let good: Schedule = "*/15  8-18 1,15 jan-mar SUN,7".parse().unwrap();
        assert_eq!(String::from(good), "*/15 8-18 1,15 jan-mar SUN,7");
    }
}
