//! Times and durations as the contract writes them.

use hotswap_core::time::{Millis, WallTime};
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// RFC 3339 in UTC with milliseconds: `2026-11-23T23:05:00.000Z`.
pub fn rfc3339(time: WallTime) -> String {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    let timestamp = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    format!("{timestamp:.3}")
}

/// What [`rfc3339`] wrote, and what others write with any offset. `None`: not a time, or before 1970.
pub fn parse_rfc3339(text: &str) -> Option<WallTime> {
    let timestamp: Timestamp = text.parse().ok()?;
    u64::try_from(timestamp.as_millisecond()).ok().map(WallTime)
}

/// ISO 8601 in hours, minutes and seconds: `PT5M23S`, `PT0.25S`, `PT0S`.
pub fn iso8601(duration: Millis) -> String {
    SignedDuration::from_millis(i64::try_from(duration.0).unwrap_or(i64::MAX)).to_string()
}

/// What [`iso8601`] wrote, and weeks or days too. `None`: not a duration, or below 0.
pub fn parse_iso8601(text: &str) -> Option<Millis> {
    // Others than ISO 8601 are read by the same parser.
    let span: Span = text.starts_with('P').then(|| text.parse().ok())??;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    u64::try_from(duration.as_millis()).ok().map(Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_back() {
        assert_eq!(parse_iso8601("PT10M"), Some(Millis(600_000)));
        assert_eq!(parse_iso8601("P1DT0.25S"), Some(Millis(86_400_250)));
        for bad in ["10m", "-PT1S", "P1Y", "", "PT"] {
            assert_eq!(parse_iso8601(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(rfc3339(WallTime(1_795_475_100_042)), "2026-11-23T23:05:00.042Z");
        assert_eq!(rfc3339(WallTime(1_795_475_100_000)), "2026-11-23T23:05:00.000Z");
        assert_eq!(
            parse_rfc3339("2026-11-24T00:05:00.042+01:00"),
            Some(WallTime(1_795_475_100_042))
        );
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(parse_rfc3339("1969-12-31T23:59:59Z"), None);
    }

    #[test]
    fn durations_are_hours_minutes_seconds() {
        assert_eq!(iso8601(Millis(323_000)), "PT5M23S");
        assert_eq!(iso8601(Millis(0)), "PT0S");
        assert_eq!(iso8601(Millis(250)), "PT0.25S");
        assert_eq!(iso8601(Millis(90_000_000)), "PT25H");
    }
}
