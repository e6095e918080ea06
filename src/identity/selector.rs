//! Label selectors, parsed once and matched many times.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector, SelectorExt};

/// Which objects of a kind are meant. An empty selector means all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSelector {
    selector: Selector,
    specificity: usize,
}

/// A selector that the API server would not have taken either.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}: write matchLabels, or matchExpressions with In, NotIn, Exists or DoesNotExist")]
pub struct SelectorError(String);

impl PodSelector {
    /// Understands a selector. None means all.
    pub fn parse(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else {
            return Ok(PodSelector::default());
        };
        let specificity = selector.match_labels.as_ref().map_or(0, BTreeMap::len)
            + selector.match_expressions.as_ref().map_or(0, Vec::len);
        let selector = Selector::try_from(selector.clone())
            .map_err(|error| SelectorError(error.to_string()))?;
        Ok(PodSelector { selector, specificity })
    }

    /// True if and only if an object with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.matches(labels)
    }

    /// The things that the selector asks for, all of them.
    pub fn expressions(&self) -> impl Iterator<Item = Expression> {
        self.selector.clone().into_iter()
    }

    /// How many things the selector asks for: of two that match, the one that asks more is the
    /// more specific.
    pub fn specificity(&self) -> usize {
        self.specificity
    }
}
