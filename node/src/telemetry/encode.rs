//! Writes metrics that are read on the spot.

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::model::spread::Spread;

/// What a collector writes to.
pub struct Encoder<'a, 'b>(pub &'a mut DescriptorEncoder<'b>);

/// The labels of one series.
pub type Labels<'l, const N: usize> = [(&'l str, &'l str); N];

impl Encoder<'_, '_> {
    pub fn gauge(&mut self, name: &str, help: &str, value: i64) -> std::fmt::Result {
        let gauge = ConstGauge::new(value);
        let metric = self
            .0
            .encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }

    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let counter = ConstCounter::new(value);
        let metric = self
            .0
            .encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(metric)
    }

    /// A gauge that is always 1, for its label.
    pub fn fact(&mut self, name: &str, help: &str, label: (&str, &str)) -> std::fmt::Result {
        self.gauges(name, help, std::iter::once(([label], 1)))
    }

    /// Gauges of one name; nothing is written when there are none.
    pub fn gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (Labels<'l, N>, u64)>,
    ) -> std::fmt::Result {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    pub fn counters<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (Labels<'l, N>, u64)>,
    ) -> std::fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A histogram in a unit of which a second has `scale`.
    pub fn spread(
        &mut self,
        name: &str,
        help: &str,
        spread: &Spread,
        scale: f64,
    ) -> std::fmt::Result {
        let (sum, buckets, count) = scaled(spread, scale);
        self.0
            .encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    /// Histograms in seconds; those that have counted nothing are left out, as in etcd.
    pub fn spreads<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        spreads: impl Iterator<Item = (Labels<'l, N>, &'l Spread)>,
    ) -> std::fmt::Result {
        let read = spreads.map(|(labels, spread)| (labels, scaled(spread, 1.0)));
        let read: Vec<_> = read.filter(|(_, (_, _, count))| *count > 0).collect();
        if read.is_empty() {
            return Ok(());
        }
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, (sum, buckets, count)) in read {
            metric
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

fn scaled(spread: &Spread, scale: f64) -> (f64, Vec<(f64, u64)>, u64) {
    let (sum, mut buckets) = spread.read();
    let count = buckets.iter().map(|(_, count)| count).sum();
    for (bound, _) in &mut buckets {
        if bound.is_finite() {
            // Without the dust of binary fractions, as etcd's bounds are written.
            *bound = (*bound * scale * 1e6).round() / 1e6;
        }
    }
    (sum * scale, buckets, count)
}
