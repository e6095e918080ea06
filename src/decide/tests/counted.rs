//! Decisions about certificates that the status counts, or does not.

use super::*;
use crate::api::{RevocationReason, RevokedStatus};

#[test]
fn what_could_not_be_revoked_is_not_kept_and_nothing_is_signed_that_the_status_could_not_count() {
    let plain = identity(json!({}));
    let with =
        |number| ours(&plain, changed(|facts| facts.leaf.serial = serial(number).to_string()));
    let uncounted = AgentIdentityStatus::default();
    let closed = AgentIdentityStatus {
        revoked: Some(RevokedStatus {
            since: now().into(),
            reason: RevocationReason::Superseded,
            serial_numbers: Vec::new(),
        }),
        ..counted()
    };
    let issue = |reason| Some(Err(reason));
    let count = |skip| Some(Ok(skip));
    type Row<'a> = (
        &'a str,
        &'a AgentIdentityStatus,
        SecretState,
        &'a [u64],
        Option<Result<bool, IssueReason>>,
    );
    let counted = counted();
    let rows: Vec<Row<'_>> = vec![
        ("the certificate that is counted is kept", &counted, with(1), &[], None),
        ("so is the next, which the status will count", &counted, with(2), &[], None),
        ("a third is nobody's", &counted, with(3), &[], issue(IssueReason::Unrecorded)),
        ("one that is revoked", &counted, with(1), &[1], issue(IssueReason::CertificateRevoked)),
        (
            "before another after the next, the next is counted",
            &counted,
            with(2),
            &[2],
            count(true),
        ),
        (
            "a number that is revoked is passed over",
            &counted,
            SecretState::Absent,
            &[2],
            count(true),
        ),
        (
            "who was revoked is first said not to be",
            &closed,
            SecretState::Absent,
            &[],
            count(false),
        ),
        ("with the status lost, the number is found again", &uncounted, with(700), &[], None),
        ("and counted", &uncounted, with(700), &[700], count(false)),
    ];
    for (sentence, status, secret, revoked, expected) in rows {
        let revoked = revoked.iter().map(|number| serial(*number).to_string()).collect();
        let plan = plan_after(status, &revoked, &plain, &admitted(), &secret);
        let found = match &plan.step {
            Step::Nothing => None,
            Step::Count { skip } => Some(Ok(*skip)),
            Step::Issue(order) => Some(Err(order.reason)),
            Step::Adjust { .. } => None,
        };
        assert_eq!(found, expected, "{sentence}");
    }
}
