//! What becomes of CAs that an authority has of its own, as rows that are sentences.

use jiff::SignedDuration;
use serde_json::json;

use super::tests::{Story, hours, now, secret};
use super::*;
use crate::api::SlotPhase;
use crate::identity::AuthoritySource;
use crate::x509::Sha256;

/// The authority of a TrustDomain whose CA is in a Secret.
pub fn secret_authority() -> AuthoritySource {
    AuthoritySource::Secret { name: "corporate-ca".to_owned() }
}

/// A root and an issuing CA under it, by numbers of the authority's own.
pub fn offered(root: u32, issuing: u32) -> Supply {
    let key_id = format!("cc{root:02}");
    let issuing_id = format!("dd{issuing:02}");
    Supply::Offered(Offer {
        root: OfferedRoot { certificate_pem: format!("{key_id}\n"), key_id },
        issuing: Some(OfferedIssuing {
            fingerprint: Sha256::of(issuing_id.as_bytes()),
            key_id: issuing_id,
        }),
    })
}

/// The CA that was ordered, as the authority gives it.
pub fn made(supply: &Supply, order: &SlotOrder, now: Timestamp) -> SlotSecret {
    let parent = order.parent.as_ref();
    let parent = parent.and_then(|name| SlotOrder::number_of("prod", SlotKind::Root, name));
    let mut made = secret(order.kind, order.number, parent, now);
    let Supply::Offered(Offer { root, issuing: Some(issuing) }) = supply else { return made };
    let content = made.content.as_mut().expect("it is whole");
    content.origin = AuthorityKind::Secret;
    content.signed_by = Some(root.key_id.clone());
    match order.kind {
        SlotKind::Root => {
            content.ca.key_id = root.key_id.clone();
            content.certificate_pem = root.certificate_pem.clone();
        }
        SlotKind::Issuing => {
            content.ca.key_id = issuing.key_id.clone();
            content.ca.fingerprint = issuing.fingerprint;
        }
    }
    made
}

/// One whose first CA signs.
fn settled() -> Story {
    let mut story = Story::new(json!({}), &[]);
    story.domain.authority = secret_authority();
    story.supply = offered(1, 1);
    story.turn();
    story.turn();
    assert_eq!(story.phases(), ["root-1 Active", "issuing-1 Active"]);
    story
}

fn turns(story: &mut Story, count: usize) -> Vec<String> {
    (0..count).for_each(|_| drop(story.turn()));
    story.phases()
}

#[test]
fn what_is_offered_is_taken_up_once_and_nothing_more_is_wanted() {
    let mut story = settled();
    let plan = story.turn();
    assert_eq!((plan.create, plan.destroy.len()), (None, 0));
    assert!(plan.chain.is_ok());
    // Its time is the authority's affair.
    story.now = now() + hours(715);
    let plan = story.turn();
    assert_eq!(plan.create, None);
    assert_eq!(story.phases(), ["root-1 Active", "issuing-1 Active"]);
}

#[test]
fn another_issuing_ca_under_the_same_root_signs_once_its_crl_is_everywhere() {
    let mut story = settled();
    story.supply = offered(1, 2);
    assert_eq!(turns(&mut story, 3)[2], "issuing-2 Prepared");
    story.now += SignedDuration::from_mins(10);
    let phases = ["root-1 Active", "issuing-1 Retiring", "issuing-2 Active"];
    assert_eq!(turns(&mut story, 1), phases);
}

#[test]
fn another_root_is_published_and_soaks_before_it_signs_while_the_old_one_does() {
    let mut story = settled();
    story.supply = offered(2, 2);
    let prepared = ["root-1 Active", "root-2 Prepared", "issuing-1 Active", "issuing-2 Prepared"];
    assert_eq!(turns(&mut story, 3), prepared);
    assert_eq!(bundle_of(&story.recorded), "cc01\ncc02\n");
    story.now += SignedDuration::from_mins(11);
    let phases = ["root-1 Retiring", "root-2 Active", "issuing-1 Retiring", "issuing-2 Active"];
    assert_eq!(turns(&mut story, 1), phases);
    story.now += hours(2);
    assert_eq!(turns(&mut story, 2), ["root-2 Active", "issuing-2 Active"]);
}

#[test]
fn what_is_taken_back_before_it_signed_is_forgotten() {
    let mut story = settled();
    story.supply = offered(2, 2);
    turns(&mut story, 2);
    story.supply = offered(1, 1);
    assert_eq!(turns(&mut story, 1), ["root-1 Active", "issuing-1 Active"]);
    story.supply = offered(3, 3);
    let phases = ["root-1 Active", "root-3 Prepared", "issuing-1 Active", "issuing-3 Prepared"];
    assert_eq!(turns(&mut story, 2), phases);
}

#[test]
fn an_authority_that_cannot_be_asked_takes_nothing_away() {
    let mut story = settled();
    story.supply = Supply::Missing;
    let plan = story.turn();
    assert_eq!(plan.create, None);
    assert!(plan.chain.is_ok());
    assert_eq!(story.phases(), ["root-1 Active", "issuing-1 Active"]);
    // What was taken up before it was lost goes on.
    story.supply = offered(2, 2);
    turns(&mut story, 2);
    story.supply = Supply::Missing;
    story.now += SignedDuration::from_mins(11);
    let phases = ["root-1 Retiring", "root-2 Active", "issuing-1 Retiring", "issuing-2 Active"];
    assert_eq!(turns(&mut story, 1), phases);
    // And where there is nothing, nothing is ordered.
    let mut story = Story::new(json!({}), &[]);
    story.supply = Supply::Missing;
    let plan = story.turn();
    assert_eq!((plan.create, plan.slots.len()), (None, 0));
    assert!(plan.chain.is_err());
}

#[test]
fn a_copy_that_is_lost_is_taken_up_again_at_once() {
    let mut story = settled();
    story.found.retain(|secret| secret.kind == SlotKind::Root);
    let phases = ["root-1 Active", "issuing-1 Retiring", "issuing-2 Active"];
    assert_eq!(turns(&mut story, 2), phases);
    assert!(story.turn().chain.is_ok());
}

#[test]
fn a_former_ca_that_is_offered_again_comes_back_as_a_new_one() {
    let mut story = settled();
    story.supply = offered(2, 2);
    turns(&mut story, 2);
    story.now += SignedDuration::from_mins(11);
    turns(&mut story, 1);
    story.supply = offered(1, 1);
    turns(&mut story, 2);
    assert_eq!(bundle_of(&story.recorded), "cc01\ncc02\n", "each certificate once");
    story.now += SignedDuration::from_mins(11);
    turns(&mut story, 1);
    let active: Vec<&str> = story
        .recorded
        .iter()
        .filter(|slot| slot.phase == SlotPhase::Active)
        .map(|slot| slot.key_id.as_str())
        .collect();
    assert_eq!(active, ["cc01", "dd01"]);
    story.now += hours(2);
    assert_eq!(turns(&mut story, 2), ["root-3 Active", "issuing-3 Active"]);
}

#[test]
fn another_kind_of_authority_is_a_rotation() {
    let mut story = Story::settled(json!({}));
    story.domain.authority = secret_authority();
    story.supply = offered(1, 1);
    turns(&mut story, 2);
    story.now += SignedDuration::from_mins(11);
    let phases = ["root-1 Retiring", "root-2 Active", "issuing-1 Retiring", "issuing-2 Active"];
    assert_eq!(turns(&mut story, 1), phases);
    story.domain.authority = AuthoritySource::SelfSigned;
    story.supply = Supply::Made;
    turns(&mut story, 2);
    story.now += SignedDuration::from_mins(11);
    turns(&mut story, 1);
    story.now += hours(2);
    assert_eq!(turns(&mut story, 2), ["root-3 Active", "issuing-3 Active"]);
}

#[test]
fn a_ca_that_is_distrusted_is_known_by_either_key() {
    let Supply::Offered(offer) = offered(1, 2) else { unreachable!() };
    let distrust = |key: &str| BTreeSet::from([key.to_owned()]);
    assert_eq!(offer.distrusted(&distrust("cc01")), Some("cc01"));
    assert_eq!(offer.distrusted(&distrust("dd02")), Some("dd02"));
    assert_eq!(offer.distrusted(&distrust("dd01")), None);
}
