//! Small charts of series over time, in characters.

use super::style::{Colour, Style};

/// Rows of a chart.
const ROWS: usize = 6;
/// Columns of its left scale.
const SCALE: usize = 9;
/// Most columns of its plot.
const PLOT_MAX: usize = 72;
/// Fewest, however narrow the terminal is.
const PLOT_MIN: usize = 16;

/// A series with its name, mark and colour. Values that weren't measured are `None`.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) mark: char,
    pub(crate) colour: Colour,
    pub(crate) values: Vec<Option<f64>>,
}

/// A chart; empty where nothing was measured. All series have equal length; several points that share a column show
/// their largest.
pub(crate) fn chart(title: &str, lines: &[Line<'_>], style: Style, columns: Option<usize>) -> Vec<String> {
    let points = lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
    let measured = || lines.iter().flat_map(|line| line.values.iter().flatten());
    let (low, high) = measured().fold((0.0_f64, f64::MIN), |(low, high), value| {
        (low.min(*value), high.max(*value))
    });
    if points == 0 || measured().next().is_none() {
        return Vec::new();
    }
    let high = if high - low < 1e-9 { low + 1.0 } else { high };
    let room = columns.map_or(PLOT_MAX, |columns| columns.saturating_sub(SCALE + 3));
    let width = points.min(room.clamp(PLOT_MIN, PLOT_MAX));
    let mut cells = vec![vec![(' ', None); width]; ROWS];
    for line in lines {
        for (column, value) in squeezed(&line.values, width).into_iter().enumerate() {
            let Some(value) = value else { continue };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a few rows"
            )]
            let up = ((value - low) / (high - low) * (ROWS - 1) as f64).round() as usize;
            cells[ROWS - 1 - up.min(ROWS - 1)][column] = (line.mark, Some(line.colour));
        }
    }
    let legend: Vec<String> = lines
        .iter()
        .map(|line| {
            format!(
                "{} {}",
                style.paint(line.mark.to_string(), line.colour),
                line.name
            )
        })
        .collect();
    let mut rows = vec![format!(
        "{}   {}",
        style.paint(title, Colour::Bold),
        legend.join("  ")
    )];
    for (row, cells) in cells.iter().enumerate() {
        let scale = match row {
            0 => number(high),
            row if row == ROWS - 1 => number(low),
            _ => String::new(),
        };
        let plot: String = cells
            .iter()
            .map(|(mark, colour)| {
                colour.map_or_else(
                    || mark.to_string(),
                    |colour| style.paint(mark.to_string(), colour),
                )
            })
            .collect();
        rows.push(format!("{scale:>SCALE$} ┤{plot}").trim_end().to_owned());
    }
    rows
}

fn squeezed(values: &[Option<f64>], width: usize) -> Vec<Option<f64>> {
    (0..width)
        .map(|column| {
            let (from, to) = (column * values.len() / width, (column + 1) * values.len() / width);
            values[from..to.max(from + 1).min(values.len())]
                .iter()
                .flatten()
                .copied()
                .reduce(f64::max)
        })
        .collect()
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: Vec<Option<f64>>, columns: Option<usize>) -> Vec<String> {
        let line = Line {
            name: "candidate",
            mark: '●',
            colour: Colour::Cyan,
            values,
        };
        chart("errors %", &[line], Style::new(false), columns)
    }

    #[test]
    fn a_series_rises_from_the_lower_left() {
        let rows = drawn((0..6).map(|i| Some(f64::from(i))).collect(), None);
        assert_eq!(rows[0], "errors %   ● candidate");
        assert_eq!(rows[1], "      5.0 ┤     ●");
        assert_eq!(rows[6], "        0 ┤●");
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        assert!(drawn(vec![None, None], None).is_empty());
        assert!(drawn(Vec::new(), None).is_empty());
        let rows = drawn(vec![Some(1.0), None, Some(1.0)], None);
        assert_eq!(rows[1], "      1.0 ┤● ●");
    }

    #[test]
    fn a_long_series_fits_and_keeps_its_peaks() {
        let mut values = vec![Some(0.0); 1_000];
        values[517] = Some(9.0);
        let rows = drawn(values, Some(40));
        assert!(rows.iter().all(|row| row.chars().count() <= 40), "{rows:#?}");
        assert!(rows[1].contains('●'));
    }
}
