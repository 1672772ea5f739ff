//! Metrics in OpenTelemetry's data model.

use std::collections::BTreeMap;
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1 as pb;
use opentelemetry_sdk::Resource;

use super::read::{Family, Kind, Sample};

/// From when to when cumulative values count.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The process's start.
    pub start: SystemTime,
    /// The reading.
    pub now: SystemTime,
}

/// What one request sends: everything that was read, of this resource.
pub fn request(families: Vec<Family>, resource: &Resource, span: Span) -> ExportMetricsServiceRequest {
    let named = resource
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()));
    let metrics = families.into_iter().filter(|family| !family.samples.is_empty());
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(pb::Resource {
                attributes: attributes(named),
                ..pb::Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "hotswap".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                metrics: metrics.map(|family| metric(family, span)).collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

fn metric(family: Family, span: Span) -> Metric {
    let data = match family.kind {
        Kind::Gauge => metric::Data::Gauge(Gauge {
            data_points: numbers(family.samples, span),
        }),
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: numbers(family.samples, span),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: distributions(family.samples, span),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
    };
    Metric {
        name: family.name,
        description: family.help,
        data: Some(data),
        ..Metric::default()
    }
}

fn numbers(samples: Vec<Sample>, span: Span) -> Vec<NumberDataPoint> {
    let point = |sample: Sample| NumberDataPoint {
        attributes: attributes(sample.labels),
        start_time_unix_nano: nanos(span.start),
        time_unix_nano: nanos(span.now),
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    };
    samples.into_iter().map(point).collect()
}

/// A histogram's lines, put together by their labels without the bound.
fn distributions(samples: Vec<Sample>, span: Span) -> Vec<HistogramDataPoint> {
    let mut points = BTreeMap::<Vec<(String, String)>, HistogramDataPoint>::new();
    for mut sample in samples {
        let bound = sample.labels.iter().position(|(name, _)| name == "le");
        let bound = bound.map(|place| sample.labels.remove(place).1);
        let point = points
            .entry(sample.labels.clone())
            .or_insert_with(|| HistogramDataPoint {
                attributes: attributes(sample.labels),
                start_time_unix_nano: nanos(span.start),
                time_unix_nano: nanos(span.now),
                ..HistogramDataPoint::default()
            });
        match (sample.suffix.as_str(), bound) {
            ("_sum", _) => point.sum = Some(sample.value),
            ("_count", _) => point.count = whole(sample.value),
            ("_bucket", Some(bound)) => {
                // The text's counts are cumulative, the model's aren't.
                let below: u64 = point.bucket_counts.iter().sum();
                point
                    .bucket_counts
                    .push(whole(sample.value).saturating_sub(below));
                let bound = bound.parse::<f64>().ok().filter(|bound| bound.is_finite());
                point.explicit_bounds.extend(bound);
            }
            _ => {}
        }
    }
    points.into_values().collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and below 2^53"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

fn attributes(labels: impl IntoIterator<Item = (String, String)>) -> Vec<KeyValue> {
    let attribute = |(key, value)| KeyValue {
        key,
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value)),
        }),
        ..KeyValue::default()
    };
    labels.into_iter().map(attribute).collect()
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::read::families;

    #[test]
    fn cumulative_buckets_become_counts_between_bounds() {
        let text = "# TYPE took histogram\n\
            took_sum{by=\"a\"} 4.5\ntook_count{by=\"a\"} 6\n\
            took_bucket{le=\"0.5\",by=\"a\"} 1\ntook_bucket{le=\"1.0\",by=\"a\"} 4\ntook_bucket{le=\"+Inf\",by=\"a\"} 6\n\
            # TYPE asked counter\nasked_total 3\n# TYPE none gauge\n# EOF\n";
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let now = start + Duration::from_secs(2);
        let sent = request(
            families(text),
            &Resource::builder_empty().build(),
            Span { start, now },
        );
        let metrics = &sent.resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!(metrics.len(), 2, "what has no value isn't sent");
        let Some(metric::Data::Histogram(took)) = &metrics[0].data else {
            panic!("{:?}", metrics[0]);
        };
        let point = &took.data_points[0];
        assert_eq!((point.count, point.sum), (6, Some(4.5)));
        assert_eq!(point.bucket_counts, [1, 3, 2]);
        assert_eq!(point.explicit_bounds, [0.5, 1.0]);
        assert_eq!(point.start_time_unix_nano, 7_000_000_000);
        let Some(metric::Data::Sum(asked)) = &metrics[1].data else {
            panic!("{:?}", metrics[1]);
        };
        assert!(asked.is_monotonic);
        assert_eq!(asked.data_points[0].time_unix_nano, 9_000_000_000);
    }
}
