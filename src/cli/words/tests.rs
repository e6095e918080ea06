//! What is said of moments and of CAs; and the trust domains that the tests of the commands read.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;
use crate::api::{BundleStatus, IdentitiesStatus, TrustDomainStatus};

/// The moment that the tests stand at.
pub fn now() -> Timestamp {
    "2026-11-24T22:30:00Z".parse().unwrap()
}

/// So many seconds from then.
pub fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

/// A root CA: its key id is `aa` and its number.
pub fn root(number: u32, phase: SlotPhase) -> SlotStatus {
    SlotStatus {
        name: format!("countersign-ca-prod-root-{number}"),
        number,
        kind: SlotKind::Root,
        phase,
        key_id: format!("aa{number:038}"),
        not_after: after(87_600 * 3_600).into(),
        since: now().into(),
        signed_by: None,
        certificate: None,
        longest_life: None,
        trusted_until: (phase == SlotPhase::Retiring).then(|| after(86_520).into()),
    }
}

/// An issuing CA under the root of the same number, unless the root is given.
pub fn issuing(number: u32, phase: SlotPhase, under: u32) -> SlotStatus {
    SlotStatus {
        name: format!("countersign-ca-prod-issuing-{number}"),
        kind: SlotKind::Issuing,
        key_id: format!("bb{number:038}"),
        not_after: after(8_760 * 3_600).into(),
        signed_by: Some(format!("aa{under:038}")),
        ..root(number, phase)
    }
}

/// The trust domain `prod` with these CAs.
pub fn prod(slots: Vec<SlotStatus>) -> TrustDomain {
    let mut domain = TrustDomain::new("prod", Default::default());
    domain.metadata.resource_version = Some("7".to_owned());
    domain.spec.domain = "prod.example.com".to_owned();
    let status = TrustDomainStatus {
        slots,
        bundle: Some(BundleStatus { sha256: "0f".repeat(32), sequence: 4 }),
        identities: Some(IdentitiesStatus { total: 12, ready: 11 }),
        ..Default::default()
    };
    domain.status = Some(status);
    domain
}

/// One that is past its first CA and at rest.
pub fn quiet() -> TrustDomain {
    prod(vec![root(1, SlotPhase::Active), issuing(1, SlotPhase::Active, 1)])
}

/// One with a second root that does not sign yet.
pub fn preparing(rotation: Option<RotationStatus>) -> TrustDomain {
    let mut domain = prod(vec![
        root(1, SlotPhase::Active),
        issuing(1, SlotPhase::Active, 1),
        root(2, SlotPhase::Prepared),
        issuing(2, SlotPhase::Prepared, 2),
    ]);
    domain.status.as_mut().unwrap().rotation = rotation;
    domain
}

/// One whose second root signs.
pub fn retiring() -> TrustDomain {
    prod(vec![
        root(1, SlotPhase::Retiring),
        issuing(1, SlotPhase::Retiring, 1),
        root(2, SlotPhase::Active),
        issuing(2, SlotPhase::Active, 2),
    ])
}

/// Every target but these has been reached, `soaks` seconds before the new root signs.
pub fn reached(targets: u32, unreached: &[&str], soaks: Option<i64>) -> RotationStatus {
    RotationStatus {
        targets,
        reached: targets - u32::try_from(unreached.len()).unwrap(),
        unreached: unreached.iter().map(|&target| target.to_owned()).collect(),
        reached_since: soaks.map(|_| now().into()),
        activates_at: soaks.map(|seconds| after(seconds).into()),
        proceeds_at: Some(after(100 * 86_400).into()),
    }
}

/// Adds a condition.
pub fn with(mut domain: TrustDomain, kind: &str, is_true: bool, reason: &str) -> TrustDomain {
    domain.status.as_mut().unwrap().conditions.push(Condition {
        type_: kind.to_owned(),
        status: if is_true { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: format!("the message of {reason}"),
        last_transition_time: now().into(),
        observed_generation: Some(1),
    });
    domain
}

#[test]
fn a_distance_has_the_two_units_that_matter() {
    for (seconds, said) in [
        (0, "now"),
        (59, "in 59s"),
        (591, "in 9m 51s"),
        (7_380, "in 2h 3m"),
        (86_400 + 7_200, "in 1d 2h"),
        (3 * 86_400 + 7_200, "in 3d"),
        (-182, "3m 2s ago"),
    ] {
        assert_eq!(distance(after(seconds), now()), said, "{seconds}");
    }
    assert_eq!(moment(now()), "2026-11-24 22:30:00Z");
}

#[test]
fn a_text_is_broken_between_words() {
    assert_eq!(wrap("one two three", 2, 9), "one two\n  three");
    assert_eq!(wrap("longer-than-a-line x", 2, 9), "longer-than-a-line\n  x");
    assert_eq!(wrap("", 2, 9), "");
}

#[test]
fn names_are_listed_as_people_do() {
    let (one, two, three) = (
        root(1, SlotPhase::Active),
        issuing(1, SlotPhase::Active, 1),
        issuing(2, SlotPhase::Retiring, 1),
    );
    assert_eq!(names_of(&[]), "nothing");
    assert_eq!(names_of(&[&one]), "root 1");
    assert_eq!(names_of(&[&one, &two, &three]), "root 1, issuing 1 and issuing 2");
    assert_eq!((count(1, "agent"), count(0, "agent")), ("1 agent".into(), "0 agents".into()));
}

#[test]
fn the_next_step_is_what_the_phase_waits_for() {
    let stalled = with(
        preparing(Some(reached(12, &["Secret a/b"], None))),
        crate::api::conditions::ROTATING,
        true,
        "Stalled",
    );
    let third_of_a_year = 8_760 * 3_600 / 3 * 2;
    for (case, domain, at, what) in [
        ("nothing is made yet", prod(Vec::new()), None, "the operator makes the first CA"),
        (
            "at rest",
            quiet(),
            Some(third_of_a_year),
            "a newer issuing CA is made, since a third of this one's life is left",
        ),
        ("prepared", preparing(None), None, "root 2 is published to every target"),
        (
            "publishing",
            preparing(Some(reached(12, &["Secret a/b"], None))),
            None,
            "root 2 signs 10m after every target holds the new bundle",
        ),
        (
            "a target was lost again while it soaked",
            preparing(Some(reached(12, &["Secret a/b"], Some(600)))),
            None,
            "root 2 signs 10m after every target holds the new bundle",
        ),
        ("soaking", preparing(Some(reached(12, &[], Some(600)))), Some(600), "root 2 signs"),
        ("stalled", stalled, Some(100 * 86_400), "root 2 signs, whoever is not reached"),
        (
            "retiring",
            retiring(),
            Some(86_520),
            "root 1 and issuing 1 are not trusted any more and their keys are destroyed",
        ),
        (
            "an issuing CA alone is prepared",
            prod(vec![
                root(1, SlotPhase::Active),
                issuing(1, SlotPhase::Active, 1),
                issuing(2, SlotPhase::Prepared, 1),
            ]),
            None,
            "issuing 2 is published to every target",
        ),
        (
            "an issuing CA alone retires",
            prod(vec![
                root(1, SlotPhase::Active),
                issuing(1, SlotPhase::Retiring, 1),
                issuing(2, SlotPhase::Active, 1),
            ]),
            Some(86_520),
            "the key of issuing 1 is destroyed",
        ),
    ] {
        let expected = NextStep { at: at.map(after), what: what.to_owned() };
        assert_eq!(next_step(&domain), expected, "{case}");
    }
}
