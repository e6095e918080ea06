//! CA keys that are made in a token (an HSM, a TPM) and never leave it: PKCS#11 2.40 and later.
//!
//! ```text
//!  Token ───────> Module ──> sessions      one module (a library of the token's maker) a path and
//!    │               ^                     a process; its sessions are pooled, and opened again
//!    └─> TokenKey ───┘                     after the token has been away
//! ```
//!
//! A [`Token`] knows the PIN. A [`TokenKey`] does not: it is found by its reference, which is what
//! a CA's Secret holds, and signs as soon as somebody has opened the token.
//!
//! Everything here blocks, for microseconds (SoftHSM) or for seconds (a TPM that makes an RSA
//! key): call it on a thread that nobody waits for.

mod authority;
mod error;
mod key;
mod module;
mod pin;
mod reference;

use std::fmt;
use std::sync::Arc;

use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::api::CaKeyAlgorithm;
use crate::identity::TokenAddress;
use crate::x509::{Sha256, hex};
use module::Module;

pub use authority::{TokenAuthority, blocking};
pub use error::TokenError;
pub use key::TokenKey;
pub use pin::{Pin, PinError};
pub use reference::{KeyReference, ReferenceError};

/// A token, and the PIN that opens it.
#[derive(Clone)]
pub struct Token {
    module: Arc<Module>,
    address: TokenAddress,
    pin: Pin,
}

/// How a key is found again: its CKA_ID.
///
/// It is made of what the key is for, so that a key whose making was interrupted before anybody
/// wrote down that it exists is found by whoever makes the same key again.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyId([u8; KEY_ID_LENGTH]);

/// Long enough that no two keys of a token share one by chance, and within what tokens allow.
const KEY_ID_LENGTH: usize = 20;

impl Token {
    /// The token of this address. The module is loaded at the first call and stays loaded.
    ///
    /// # Errors
    /// When there is no such module. Nothing is asked of the token yet.
    pub fn new(address: TokenAddress, pin: Pin) -> Result<Self, TokenError> {
        Ok(Token { module: Module::load(&address.module)?, address, pin })
    }

    /// Sees that the token is there and takes the PIN.
    ///
    /// # Errors
    /// When it is not there, or does not take the PIN.
    pub fn check(&self) -> Result<(), TokenError> {
        self.with(|_, _| Ok(()))
    }

    /// Makes a key pair that cannot be exported, or takes up the one of this id that was made
    /// before a crash. `name` is the label under which people see it in the token.
    ///
    /// # Errors
    /// When the token cannot be asked, is full, or does not know the algorithm.
    pub fn make_key(
        &self,
        id: &KeyId,
        name: &str,
        algorithm: CaKeyAlgorithm,
    ) -> Result<TokenKey, TokenError> {
        if let Some(left) = self.left_behind(id, name, algorithm)? {
            return Ok(left);
        }
        let public = self.with(|session, _| key::generate(session, id, name, algorithm))?;
        let key = TokenKey::new(self.reference(id, name), algorithm, public);
        key.find()?;
        Ok(key)
    }

    /// Destroys every key of this id, and counts the private ones. None is no error.
    ///
    /// # Errors
    /// When the token cannot be asked, or refuses.
    pub fn destroy_key(&self, id: &KeyId) -> Result<usize, TokenError> {
        self.with(|session, _| {
            let private = objects(session, id, ObjectClass::PRIVATE_KEY)?;
            // The public half last: as long as it is there, the key can be found.
            for object in private.iter().chain(&objects(session, id, ObjectClass::PUBLIC_KEY)?) {
                session.destroy_object(*object)?;
            }
            Ok(private.len())
        })
    }

    /// Destroys what was made for CAs of this TrustDomain, but for those of these names, and counts
    /// the objects. A key is known by its id, which is made of the TrustDomain's UID and of its own
    /// label, so that nobody else's is ever touched.
    ///
    /// # Errors
    /// When the token cannot be asked, or refuses.
    pub fn sweep(&self, trust_domain_uid: &str, kept: &[String]) -> Result<usize, TokenError> {
        self.with(|session, _| {
            let mut left = labelled(session, ObjectClass::PRIVATE_KEY)?;
            left.extend(labelled(session, ObjectClass::PUBLIC_KEY)?);
            left.retain(|(_, label, id)| {
                KeyId::of(trust_domain_uid, label).0 == id[..] && !kept.contains(label)
            });
            for (object, _, _) in &left {
                session.destroy_object(*object)?;
            }
            Ok(left.len())
        })
    }

    /// A key of this id and algorithm that the token made itself and does not give away.
    fn left_behind(
        &self,
        id: &KeyId,
        name: &str,
        algorithm: CaKeyAlgorithm,
    ) -> Result<Option<TokenKey>, TokenError> {
        let publics = self.with(|session, _| key::left_behind(session, id, algorithm))?;
        for public in publics {
            let key = TokenKey::new(self.reference(id, name), algorithm, public);
            match key.find() {
                Ok(()) => return Ok(Some(key)),
                Err(TokenError::KeyMissing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn reference(&self, id: &KeyId, name: &str) -> KeyReference {
        KeyReference { token: self.address.clone(), name: name.to_owned(), id: id.clone() }
    }

    fn with<T>(
        &self,
        work: impl Fn(&Session, module::Epoch) -> Result<T, error::Fault>,
    ) -> Result<T, TokenError> {
        self.module.with(&self.address.label, &self.pin, work)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.address)
    }
}

impl KeyId {
    /// The id of the key of the CA of this name, which belongs to the TrustDomain of this UID. Two
    /// clusters may have a TrustDomain of one name and share a token.
    pub fn of(trust_domain_uid: &str, name: &str) -> Self {
        let digest = Sha256::of(format!("{trust_domain_uid}/{name}").as_bytes());
        let mut id = [0; KEY_ID_LENGTH];
        id.copy_from_slice(&digest.as_bytes()[..KEY_ID_LENGTH]);
        KeyId(id)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(KeyId)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The objects of one class that have this id.
fn objects(
    session: &Session,
    id: &KeyId,
    class: ObjectClass,
) -> Result<Vec<ObjectHandle>, error::Fault> {
    find(session, &[Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.0.to_vec())])
}

/// The objects of one class that have a label, with it and their ids.
fn labelled(
    session: &Session,
    class: ObjectClass,
) -> Result<Vec<(ObjectHandle, String, Vec<u8>)>, error::Fault> {
    let mut found = Vec::new();
    for object in find(session, &[Attribute::Class(class), Attribute::Token(true)])? {
        let (mut label, mut id) = (Vec::new(), Vec::new());
        let types = [AttributeType::Label, AttributeType::Id];
        for attribute in session.get_attributes(object, &types)? {
            match attribute {
                Attribute::Label(value) => label = value,
                Attribute::Id(value) => id = value,
                _ => {}
            }
        }
        // All of ours are text.
        if let Ok(label) = String::from_utf8(label) {
            found.push((object, label, id));
        }
    }
    Ok(found)
}

fn find(session: &Session, wanted: &[Attribute]) -> Result<Vec<ObjectHandle>, error::Fault> {
    if !module::is_logged_in(session)? {
        return Err(Pkcs11Error::Pkcs11(RvError::UserNotLoggedIn, Function::FindObjects).into());
    }
    Ok(session.find_objects(wanted)?)
}
