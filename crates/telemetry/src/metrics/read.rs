//! Reads the text that [`crate::exposition::text`] writes.

use std::iter::Peekable;
use std::str::Chars;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows.
    Counter,
    /// A distribution.
    Histogram,
}

/// A metric with its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name, for counters without `_total`.
    pub name: String,
    /// What it says, for people.
    pub help: String,
    /// What it is.
    pub kind: Kind,
    /// Its samples, in the order of the text.
    pub samples: Vec<Sample>,
}

/// A line of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What follows the metric's name: empty, or `_total`, `_bucket`, `_sum`, `_count`.
    pub suffix: String,
    /// Names and values of its labels.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

/// The metrics of a text. Lines that are none of a gauge, a counter or a histogram are passed over.
pub fn families(text: &str) -> Vec<Family> {
    let (mut families, mut help) = (Vec::<Family>::new(), (String::new(), String::new()));
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            let (name, said) = said.split_once(' ').unwrap_or((said, ""));
            help = (name.to_owned(), said.trim_end_matches('.').to_owned());
        } else if let Some(said) = line.strip_prefix("# TYPE ") {
            families.extend(said.split_once(' ').and_then(|(name, kind)| {
                let kind = match kind {
                    "gauge" => Kind::Gauge,
                    "counter" => Kind::Counter,
                    "histogram" => Kind::Histogram,
                    _ => return None,
                };
                let (about, said) = std::mem::take(&mut help);
                Some(Family {
                    name: name.to_owned(),
                    help: if about == name { said } else { String::new() },
                    kind,
                    samples: Vec::new(),
                })
            }));
        } else if let Some(family) = families.last_mut() {
            family.samples.extend(sample(line, &family.name));
        }
    }
    families
}

fn sample(line: &str, family: &str) -> Option<Sample> {
    let rest = line.strip_prefix(family)?;
    let end = rest.find(['{', ' '])?;
    let (suffix, rest) = rest.split_at(end);
    if !matches!(suffix, "" | "_total" | "_bucket" | "_sum" | "_count") {
        return None;
    }
    let mut rest = rest.chars().peekable();
    let labels = labels(&mut rest)?;
    // What comes behind the value is an exemplar.
    let rest: String = rest.collect();
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        suffix: suffix.to_owned(),
        labels,
        value,
    })
}

/// `{name="value",…}`, or nothing.
fn labels(text: &mut Peekable<Chars<'_>>) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    if text.next_if_eq(&'{').is_none() {
        return Some(labels);
    }
    while text.next_if_eq(&'}').is_none() {
        let mut name = String::new();
        while let Some(letter) = text.next_if(|letter| *letter != '=') {
            name.push(letter);
        }
        text.next();
        text.next_if_eq(&'"')?;
        let mut value = String::new();
        loop {
            match text.next()? {
                '"' => break,
                '\\' => value.push(match text.next()? {
                    'n' => '\n',
                    other => other,
                }),
                letter => value.push(letter),
            }
        }
        labels.push((name, value));
        text.next_if_eq(&',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family as Labelled;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn what_the_registry_writes_is_read_as_it_was_meant() {
        let mut registry = Registry::default();
        let asked = Labelled::<Vec<(&'static str, String)>, Counter>::default();
        registry.register("asked", "How often", asked.clone());
        asked
            .get_or_create(&vec![("by", "a \"b\" \\ c\nd, {e}=f".to_owned())])
            .inc_by(3);
        let level: Gauge = Gauge::default();
        level.set(-7);
        registry.register("level", "How much", level);
        let took = Histogram::new([0.5, 1.0]);
        took.observe(0.7);
        registry.register("took", "How long", took);
        let read = families(&crate::exposition::text(&registry));
        let find = |name: &str| read.iter().find(|family| family.name == name).unwrap();
        let asked = find("asked");
        assert_eq!((asked.kind, asked.help.as_str()), (Kind::Counter, "How often"));
        assert_eq!(asked.samples[0].suffix, "_total");
        assert_eq!(
            asked.samples[0].labels,
            [("by".to_owned(), "a \"b\" \\ c\nd, {e}=f".to_owned())]
        );
        assert_eq!(asked.samples[0].value, 3.0);
        assert_eq!(find("level").samples[0].value, -7.0);
        let took = find("took");
        let of = |suffix: &str| {
            took.samples
                .iter()
                .filter(|sample| sample.suffix == suffix)
                .count()
        };
        assert_eq!((of("_bucket"), of("_sum"), of("_count")), (3, 1, 1));
    }

    #[test]
    fn rubbish_is_passed_over() {
        for text in [
            "",
            "# TYPE",
            "# TYPE a",
            "# TYPE a gauge\na{b=\"c",
            "# TYPE a gauge\na{b} 1",
            "a 1",
            "# TYPE a gauge\na x",
        ] {
            assert!(
                families(text).iter().all(|family| family.samples.is_empty()),
                "{text:?}"
            );
        }
    }
}
