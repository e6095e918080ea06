//! The drawing, read as a person reads it.

use super::*;
use crate::cli::words::tests::{issuing, now, preparing, prod, quiet, reached, retiring, with};

#[test]
fn a_trust_domain_at_rest() {
    let domain = with(with(quiet(), BUNDLE_PUBLISHED, true, "Published"), READY, true, "Active");
    let expected = "\
prod   spiffe://prod.example.com

  root 1         Active    signs; ends 2036-11-21 22:30:00Z, in 3650d
  │              key id aa00000000000000000000000000000000000001
  └─ issuing 1   Active    signs; ends 2027-11-24 22:30:00Z, in 365d
                 key id bb00000000000000000000000000000000000001

  bundle         sequence 4
                 sha256 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f
  reached        the message of Published
  next           2027-07-26 06:30:00Z, in 243d: a newer issuing CA is made, since a third of this
                 one's life is left
  identities     12, of them ready 11
  ready          the message of Active
";
    assert_eq!(draw(&domain, now()), expected);
}

#[test]
fn a_rotation_that_misses_targets_names_them() {
    let mut rotation = reached(12, &["Secret research/planner-identity", "namespace ops"], None);
    rotation.reached = 4;
    let domain = with(preparing(Some(rotation)), ROTATING, true, "Publishing");
    let text = draw(&domain, now());
    let expected = "
  root 2         Prepared  signs nothing yet; ends 2036-11-21 22:30:00Z, in 3650d
  │              key id aa00000000000000000000000000000000000002
  └─ issuing 2   Prepared  signs nothing yet; ends 2027-11-24 22:30:00Z, in 365d
                 key id bb00000000000000000000000000000000000002

  bundle         sequence 4
                 sha256 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f
  reached        4 of 12 targets hold it
  not reached    Secret research/planner-identity
                 namespace ops
                 and 6 more
  rotating       Publishing: the message of Publishing
  next           root 2 signs 10m after every target holds the new bundle
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_retiring_ca_says_until_when() {
    let text = draw(&retiring(), now());
    let expected = "
  root 1         Retiring  signs nothing more; trusted until 2026-11-25 22:32:00Z, in 1d 0h
";
    assert!(text.contains(expected), "{text}");
    assert!(
        text.contains("next           2026-11-25 22:32:00Z, in 1d 0h: root 1 and issuing 1"),
        "{text}"
    );
}

#[test]
fn two_issuing_cas_of_a_root_are_drawn_below_it_and_an_orphan_at_the_end() {
    let text = draw(
        &prod(vec![
            issuing(1, SlotPhase::Retiring, 9),
            crate::cli::words::tests::root(2, SlotPhase::Active),
            issuing(2, SlotPhase::Retiring, 2),
            issuing(3, SlotPhase::Active, 2),
        ]),
        now(),
    );
    let names: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("Retiring") || line.contains("Active"))
        .map(|line| line[..].split("  ").nth(1).unwrap_or_default())
        .collect();
    assert_eq!(names, ["root 2", "├─ issuing 2", "└─ issuing 3", "issuing 1"]);
}

#[test]
fn every_drawing_fits_its_columns() {
    let mut distrusting = quiet();
    distrusting.spec.ca.distrust = vec!["cc".repeat(20)];
    let blocked = with(quiet(), READY, false, "CASecretMissing");
    for domain in [prod(Vec::new()), quiet(), preparing(None), retiring(), distrusting, blocked] {
        let text = draw(&domain, now());
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line:?} in\n{text}");
            assert_eq!(line, line.trim_end(), "in\n{text}");
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let text = draw(&with(quiet(), READY, false, "CASecretMissing"), now());
    assert!(text.contains("  not ready      CASecretMissing: the message of"), "{text}");
    let foreign = with(preparing(None), BUNDLE_PUBLISHED, false, "NamespacesUnreached");
    let text = draw(&foreign, now());
    assert!(text.contains("  unpublished    the message of NamespacesUnreached"), "{text}");
    let text = draw(&prod(Vec::new()), now());
    assert!(text.contains("There is no CA yet."), "{text}");
    assert!(text.contains("next           the operator makes the first CA"), "{text}");
}

#[test]
fn a_remote_trust_domain_shows_whom_it_trusts_and_where_that_comes_from() {
    let url = "https://spire.partner.example/bundle";
    let mut domain: TrustDomain = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "partner"},
        "spec": {"domain": "partner.example", "authority": {"remote": {"url": url, "format": "SPIFFE"}}},
    }))
    .unwrap();
    assert!(draw(&domain, now()).contains("  There is no bundle yet.\n"));
    domain.status = Some(
        serde_json::from_value(serde_json::json!({
            "bundle": {"sha256": "0f".repeat(32), "sequence": 3},
            "remote": {"url": url, "since": "2026-11-24T21:30:00Z", "sequence": 9, "certificates": [
                {"subject": "O=Partner, CN=root", "sha256": "00", "notAfter": "2036-11-21T22:30:00Z", "certificate": ""},
            ]},
        }))
        .unwrap(),
    );
    let domain = with(domain, READY, false, "AuthorityUnavailable");
    let expected = format!(
        "\
partner   spiffe://partner.example

  root 1         ends 2036-11-21 22:30:00Z, in 3650d
                 O=Partner, CN=root

  from           {url}
  since          2026-11-24 21:30:00Z, 1h 0m ago
                 its own sequence 9
  bundle         sequence 3
                 sha256 {}
  not ready      AuthorityUnavailable: the message of AuthorityUnavailable
",
        "0f".repeat(32)
    );
    assert_eq!(draw(&domain, now()), expected);
}
