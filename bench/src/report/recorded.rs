//! The last recorded ratios, so that what became slower is noticed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Figure;

/// A ratio that fell by more than this share of itself is warned of: less is noise, on a shared machine.
const FALL_MAX: f64 = 0.15;

type Ratios = BTreeMap<String, f64>;

fn read(file: &Path) -> Result<Ratios> {
    if !file.is_file() {
        return Ok(Ratios::new());
    }
    let text = std::fs::read_to_string(file)?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no ratios", file.display()))
}

/// Writes the ratios of this run over those of the same names.
pub(crate) fn record(file: &Path, figures: &[Figure]) -> Result<()> {
    let mut ratios = read(file)?;
    for (name, value) in figures.iter().filter_map(Figure::guard) {
        ratios.insert(name.to_owned(), (value * 1e3).round() / 1e3);
    }
    std::fs::write(file, serde_json::to_string_pretty(&ratios)? + "\n")?;
    Ok(())
}

/// What fell by more than noise since it was recorded. For every ratio more is better.
pub(crate) fn compare(file: &Path, figures: &[Figure]) -> Result<Vec<String>> {
    Ok(fallen(&read(file)?, figures))
}

fn fallen(recorded: &Ratios, figures: &[Figure]) -> Vec<String> {
    let fell = |(name, value): (&str, f64)| {
        let before = *recorded.get(name)?;
        (value < before * (1.0 - FALL_MAX))
            .then(|| format!("{name} is {value:.3} and was {before:.3} when it was last recorded"))
    };
    figures
        .iter()
        .filter_map(Figure::guard)
        .filter_map(fell)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fell_is_warned_of_and_noise_is_not() {
        let recorded = Ratios::from([("a".to_owned(), 1.0), ("b".to_owned(), 1.0)]);
        let figures = [
            Figure::ratio("a", "it", 0.86),
            Figure::ratio("b", "it", 0.84),
            Figure::ratio("new", "it", 0.1),
            Figure::new("a time", 0.1, "ms"),
        ];
        let told = fallen(&recorded, &figures);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("b is 0.840 and was 1.000"), "{told:?}");
    }
}
