//! What is kept of the ConfigMaps that record what was revoked or hold a CRL.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use crate::api::names::{
    CRL_DER, CRL_SHA256_ANNOTATION, REVOCATION_LABEL, REVOKED_RECORD, crl_name, record_name,
};
use crate::decide::record::{self, Shard};
use crate::decide::schedule::{BACKDATE, saturating_add};
use crate::identity::Domain;
use crate::x509::{Crl, Sha256, read_crl};

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub enum RevocationObject {
    /// A part of the record.
    Record { trust_domain: String, number: usize, shard: Shard },
    /// A CA's CRL.
    Crl(CrlObject),
}

/// A CA's CRL as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct CrlObject {
    pub trust_domain: String,
    /// The CA's key id.
    pub key_id: String,
    pub resource_version: String,
    pub der: Vec<u8>,
    /// What it says; None where it is not what was put there.
    pub crl: Option<Crl>,
}

impl RevocationObject {
    /// What is kept of a ConfigMap; None of one whose name is none of ours.
    pub fn of(config_map: &ConfigMap) -> Option<Self> {
        let trust_domain = config_map.labels().get(REVOCATION_LABEL)?.clone();
        let name = config_map.name_any();
        let resource_version = config_map.resource_version().unwrap_or_default();
        if let Some(key_id) = name.strip_prefix(&crl_name(&trust_domain, "")) {
            let der = config_map.binary_data.as_ref().and_then(|data| data.get(CRL_DER));
            let der = der.map(|der| der.0.clone()).unwrap_or_default();
            let sha256 = config_map.annotations().get(CRL_SHA256_ANNOTATION);
            let is_ours = sha256 == Some(&Sha256::of(&der).to_string());
            let mut object =
                CrlObject::read(trust_domain, key_id.to_owned(), resource_version, der);
            object.crl = object.crl.filter(|_| is_ours);
            return Some(RevocationObject::Crl(object));
        }
        let start = record_name(&trust_domain, 0);
        let number = name.strip_prefix(start.trim_end_matches('0'))?.parse().ok()?;
        let text = config_map.data.as_ref().and_then(|data| data.get(REVOKED_RECORD));
        let (entries, is_sound) = record::read(text.map(String::as_str).unwrap_or_default());
        let shard = Shard { resource_version, entries, is_sound: is_sound && text.is_some() };
        Some(RevocationObject::Record { trust_domain, number, shard })
    }

    /// The TrustDomain it belongs to.
    pub fn trust_domain(&self) -> &str {
        match self {
            RevocationObject::Record { trust_domain, .. } => trust_domain,
            RevocationObject::Crl(crl) => &crl.trust_domain,
        }
    }

    /// The version of the ConfigMap.
    pub fn resource_version(&self) -> &str {
        match self {
            RevocationObject::Record { shard, .. } => &shard.resource_version,
            RevocationObject::Crl(crl) => &crl.resource_version,
        }
    }

    /// The CRL, if it is one.
    pub fn as_crl(&self) -> Option<&CrlObject> {
        match self {
            RevocationObject::Crl(crl) => Some(crl),
            RevocationObject::Record { .. } => None,
        }
    }

    /// True if and only if it is a CRL whose period is over.
    pub fn is_stale(&self, domain: &Domain, now: Timestamp) -> bool {
        let period = domain.crl_period.as_duration() + BACKDATE;
        self.as_crl()
            .and_then(|object| object.crl.as_ref())
            .is_some_and(|crl| saturating_add(crl.this_update, period) <= now)
    }
}

impl CrlObject {
    /// A CRL in DER, read. One of another CA counts as none.
    pub fn read(
        trust_domain: String,
        key_id: String,
        resource_version: String,
        der: Vec<u8>,
    ) -> Self {
        let crl = read_crl(&der).ok().filter(|crl| crl.key_id == key_id);
        CrlObject { trust_domain, key_id, resource_version, der, crl }
    }
}
