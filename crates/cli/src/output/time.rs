//! Times and durations as people read them.

use std::time::{Duration, SystemTime};

/// A time of the API: RFC 3339, UTC.
pub(crate) fn parse_time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text).ok()
}

/// A duration of the API: ISO 8601 with hours, minutes and seconds, such as `PT5M23.5S`.
pub(crate) fn iso_duration(text: &str) -> Option<Duration> {
    let (days, time) = text
        .strip_prefix('P')?
        .split_once('T')
        .unwrap_or((&text[1..], ""));
    let mut total = match days.strip_suffix('D') {
        Some(days) => days.parse::<f64>().ok()? * 86_400.0,
        None if days.is_empty() => 0.0,
        None => return None,
    };
    let mut number = String::new();
    for c in time.chars() {
        let unit = match c {
            'H' => 3_600.0,
            'M' => 60.0,
            'S' => 1.0,
            c => {
                number.push(c);
                continue;
            }
        };
        total += number.parse::<f64>().ok()? * unit;
        number.clear();
    }
    number
        .is_empty()
        .then(|| Duration::try_from_secs_f64(total).ok())?
}

/// A duration with as many digits as say something: `0.35 s`, `12.4 s`, `5m 23s`, `2h 05m`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{:.2} s", duration.as_secs_f64()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..172_800 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long ago a time of the API was; the text itself where it is no time.
pub(crate) fn ago(text: &str) -> String {
    let Some(time) = parse_time(text) else {
        return text.to_owned();
    };
    let seconds = SystemTime::now()
        .duration_since(time)
        .unwrap_or_default()
        .as_secs();
    match seconds {
        0..2 => "now".to_owned(),
        2..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_durations() {
        let seconds = |text| iso_duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("PT5M23S"), Some(323.0));
        assert_eq!(seconds("PT0.25S"), Some(0.25));
        assert_eq!(seconds("P1DT1H"), Some(90_000.0));
        for wrong in ["", "5s", "PT5", "PX", "PTS", "PT-1S"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_for_people() {
        let text = |ms| duration(Duration::from_millis(ms));
        assert_eq!(
            [text(352), text(12_440), text(323_000), text(7_500_000)],
            ["0.35 s", "12.4 s", "5m 23s", "2h 05m"]
        );
    }
}
