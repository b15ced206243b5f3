//! Metrics as Prometheus reads them. Source: its text format, version 0.0.4.

use std::fmt::{self, Write as _};
use std::time::Duration;

use cellmesh_dpu::Histogram;

use super::families::{Family, Kind};

/// The text of a scrape, as it is written.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// Values of a family's labels, in its order.
type Labels<'l> = &'l [&'l str];

impl Text {
    pub(super) fn into_string(self) -> String {
        self.0
    }

    /// A family with one sample.
    pub(super) fn one(&mut self, family: &Family, value: impl fmt::Display) {
        self.family(family, [(&[][..], value)]);
    }

    /// A family with a sample for each set of labels. Nothing at all without samples.
    pub(super) fn family<'l, V: fmt::Display>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.head(family);
        }
        for (labels, value) in samples {
            self.sample(family, "", labels, None, &value);
        }
    }

    /// A family of durations.
    pub(super) fn histograms<'l>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = (Labels<'l>, &'l Histogram)>,
    ) {
        let mut samples = samples.into_iter().filter(|(_, histogram)| histogram.count() > 0).peekable();
        if samples.peek().is_some() {
            self.head(family);
        }
        for (labels, histogram) in samples {
            for (bound, count) in histogram.cumulative() {
                self.sample(family, "_bucket", labels, Some(&Seconds(bound)), &count);
            }
            self.sample(family, "_bucket", labels, Some(&"+Inf"), &histogram.count());
            self.sample(family, "_sum", labels, None, &Seconds(histogram.sum()));
            self.sample(family, "_count", labels, None, &histogram.count());
        }
    }

    fn head(&mut self, family: &Family) {
        let Family { name, kind, help, .. } = family;
        let (prefix, kind) = (family.prefix(), kind.name());
        self.write(format_args!("# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}\n"));
    }

    /// `le`: the upper bound of a bucket.
    fn sample(
        &mut self,
        family: &Family,
        suffix: &str,
        labels: Labels<'_>,
        le: Option<&dyn fmt::Display>,
        value: &dyn fmt::Display,
    ) {
        assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
        debug_assert!(
            suffix.is_empty() || (family.kind, family.unit) == (Kind::Histogram, "seconds"),
            "{}",
            family.name
        );
        self.write(format_args!("{}{}{suffix}", family.prefix(), family.name));
        let mut before = '{';
        for (label, value) in family.labels.iter().zip(labels) {
            debug_assert!(
                label.values().is_none_or(|values| values.contains(value)),
                "{}: {label:?} is {value}",
                family.name
            );
            self.write(format_args!("{before}{}=\"{}\"", label.name(), Escaped(value)));
            before = ',';
        }
        if let Some(le) = le {
            self.write(format_args!("{before}le=\"{le}\""));
            before = ',';
        }
        self.write(format_args!("{} {value}\n", if before == ',' { "}" } else { "" }));
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("memory takes all text");
    }
}

/// The value of a label. Source: the text format, "Comments, help text, and type information".
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            let (before, from) = rest.split_at(at);
            let escape = match from.as_bytes()[0] {
                b'\n' => "\\n",
                b'"' => "\\\"",
                _ => "\\\\",
            };
            f.write_str(before)?;
            f.write_str(escape)?;
            rest = &from[1..];
        }
        f.write_str(rest)
    }
}

/// A duration in seconds, exactly.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanos == 0 {
            return write!(f, "{seconds}");
        }
        let digits = format!("{nanos:09}");
        write!(f, "{seconds}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::super::families::{CELL_DURATION, CONNECTIONS_OPEN, POLICY_REFUSED, REQUESTS_RECEIVED};
    use super::*;

    /// A value cannot end its label, or its line.
    #[test]
    fn values_stay_inside_their_quotes() {
        assert_eq!(Escaped("a\"} 1\nb\\").to_string(), "a\\\"} 1\\nb\\\\");
        assert_eq!(Escaped("plain").to_string(), "plain");
    }

    /// Families say what they are, samples carry their labels, and what has no samples is not there.
    #[test]
    fn text_is_as_prometheus_reads_it() {
        let mut text = Text::default();
        text.one(&CONNECTIONS_OPEN, 3);
        text.family(&POLICY_REFUSED, [(&["s", "rate"][..], 1), (&["t", "rate"], 2)]);
        text.family::<u64>(&REQUESTS_RECEIVED, []);
        let mut times = Histogram::default();
        times.record(Duration::from_micros(30));
        times.record(Duration::from_millis(1500));
        text.histograms(&CELL_DURATION, [(&["s"][..], &times), (&["t"], &Histogram::default())]);
        let text = text.into_string();
        let mut lines = text.lines();
        let first: Vec<&str> = lines.by_ref().take(7).collect();
        let expected = [
            "# HELP cellmesh_connections_open Connections of clients.",
            "# TYPE cellmesh_connections_open gauge",
            "cellmesh_connections_open 3",
            "# HELP cellmesh_policy_refused_total Requests refused by the policy of their service.",
            "# TYPE cellmesh_policy_refused_total counter",
            "cellmesh_policy_refused_total{service=\"s\",reason=\"rate\"} 1",
            "cellmesh_policy_refused_total{service=\"t\",reason=\"rate\"} 2",
        ];
        assert_eq!(first, expected);
        for line in [
            "# TYPE cellmesh_cell_request_duration_seconds histogram",
            "cellmesh_cell_request_duration_seconds_bucket{service=\"s\",le=\"0.000025\"} 0",
            "cellmesh_cell_request_duration_seconds_bucket{service=\"s\",le=\"0.00005\"} 1",
            "cellmesh_cell_request_duration_seconds_bucket{service=\"s\",le=\"2.5\"} 2",
            "cellmesh_cell_request_duration_seconds_bucket{service=\"s\",le=\"+Inf\"} 2",
            "cellmesh_cell_request_duration_seconds_sum{service=\"s\"} 1.50003",
            "cellmesh_cell_request_duration_seconds_count{service=\"s\"} 2",
        ] {
            assert!(lines.clone().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("requests_received") && !text.contains("service=\"t\",le"), "{text}");
    }
}
