//! The PIN of a token's user.

use std::fmt;
use std::sync::Arc;

use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

/// The PIN of a token's user. It prints nothing and clears itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin(Arc<Zeroizing<String>>);

/// Why a text is no PIN. Carries nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    #[error("it is empty")]
    Empty,
    #[error("it is not UTF-8, as PKCS#11 wants it")]
    NotUtf8,
}

impl Pin {
    /// Reads a PIN as it stands in a Secret. A line end after it, which `echo` leaves there, is not
    /// part of it: with it the token would refuse, and count a wrong try.
    pub fn read(bytes: &[u8]) -> Result<Self, PinError> {
        let text = std::str::from_utf8(bytes).map_err(|_| PinError::NotUtf8)?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(PinError::Empty);
        }
        Ok(Pin(Arc::new(Zeroizing::new(text.to_owned()))))
    }

    /// The PIN as the token gets it.
    pub(super) fn expose(&self) -> AuthPin {
        AuthPin::new(self.0.as_str().into())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[PIN]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_without_its_line_end_and_never_printed() {
        let pin = Pin::read(b"1234\n").unwrap();
        assert_eq!(pin, Pin::read(b"1234").unwrap());
        assert_ne!(pin, Pin::read(b"1234 ").unwrap());
        assert_eq!(format!("{pin:?}"), "[PIN]");
        assert_eq!(Pin::read(b"\n"), Err(PinError::Empty));
        assert_eq!(Pin::read(b"\xff\xfe"), Err(PinError::NotUtf8));
    }
}
