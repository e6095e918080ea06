//! Serial numbers that need no record of their own: each follows from who it is for and how many
//! there were before.

use std::fmt;
use std::str::FromStr;

use super::{Sha256, hex};

/// A certificate's serial number (RFC 5280, 4.1.2.2): positive, and always 16 octets long.
///
/// Whoever knows an identity's UID and how many certificates it has had knows the serial number
/// of the next one: so a certificate can be revoked of which nothing is left but that it may
/// exist. design/20261124-ledger.md has the alternatives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial([u8; 16]);

/// A text that is no serial number of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no serial number: write the 32 hexadecimal digits in lower case that status has")]
pub struct SerialError(String);

impl Serial {
    /// The serial number of the certificate that is the `revision`th of the object with this UID.
    ///
    /// 126 bits of a hash: nobody meets one twice. The API server draws UIDs at random, and what is
    /// signed is hashed with SHA-256, so that a serial number need not be a secret (it had to be
    /// while collisions of MD5 and SHA-1 could be made).
    pub fn derived(uid: &str, revision: u64) -> Self {
        let digest = Sha256::of(format!("countersign serial {uid} {revision}").as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.0[..16]);
        // Positive, and never shorter: DER leaves out leading zeros.
        bytes[0] = bytes[0] & 0x3f | 0x40;
        Serial(bytes)
    }

    /// The octets, the most significant first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    /// Reads 32 hexadecimal digits in lower case, of a number that [`Serial::derived`] can give.
    fn from_str(text: &str) -> Result<Self, SerialError> {
        let error = || SerialError(text.chars().take(64).collect());
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !is_hex {
            return Err(error());
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| error())?;
        Ok(Serial(number.to_be_bytes()))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_follows_from_who_and_how_many_and_nothing_else() {
        let one = Serial::derived("u", 1);
        assert_eq!(one, Serial::derived("u", 1));
        assert_ne!(one, Serial::derived("u", 2));
        assert_ne!(one, Serial::derived("v", 1));
        assert_eq!(one.to_string().parse(), Ok(one));
        assert!((0x40..0x80).contains(&one.as_bytes()[0]), "positive, and 16 octets long");
    }

    #[test]
    fn what_is_no_serial_number_is_refused() {
        for text in ["", "0a", "0A1b2c3d4e5f60718293a4b5c6d7e8f9", &"0".repeat(33), "+1"] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
    }
}
