//! Reading a Prometheus page.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Sample>);

/// One line of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name, with `_total`, `_bucket` and so on.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Metrics {
    /// Reads the text format. Panics where a line is not of it.
    pub fn parse(page: &str) -> Self {
        let samples = page
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| sample(line).unwrap_or_else(|| panic!("no metric: {line:?}")))
            .collect();
        Self(samples)
    }

    /// Every sample.
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The sum over all samples of `name` whose labels include `labels`; 0 where there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The one sample of `name` whose labels include `labels`.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).next().map(|sample| sample.value)
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        other => other.parse().ok()?,
    };
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// `a="b",c="d"`; none of our label values holds a quote or a comma followed by a name.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    text.split("\",")
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once("=\"")?;
            Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_by_name_and_labels() {
        let page = "# HELP x y\nx_total{a=\"1\",b=\"spiffe://d/ns/a\"} 2\nx_total{a=\"2\",b=\"c\"} 3\nup 1\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.sum("x_total", &[]), 5.0);
        assert_eq!(metrics.get("x_total", &[("b", "spiffe://d/ns/a")]), Some(2.0));
        assert_eq!(metrics.get("up", &[]), Some(1.0));
        assert_eq!(metrics.get("down", &[]), None);
    }
}
