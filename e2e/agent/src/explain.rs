//! TLS errors in words that say what to look at.

use rustls::{AlertDescription, Error, InvalidMessage};

/// The alert that the other side sent, if that is what this error is.
pub fn alert_in(error: &std::io::Error) -> Option<AlertDescription> {
    match rustls_error(error)? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// An alert from the other side, as a sentence about us.
pub fn alert(alert: AlertDescription) -> String {
    let meaning = match alert {
        AlertDescription::CertificateRequired => "it demands a certificate and we presented none",
        AlertDescription::UnknownCA => "it does not trust the CA that signed our certificate",
        AlertDescription::CertificateExpired => "our certificate has expired or is not valid yet",
        AlertDescription::CertificateRevoked => "our certificate is revoked",
        AlertDescription::AccessDenied => {
            "our certificate is genuine, but our SPIFFE ID may not call here"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => "it cannot accept a certificate of this kind",
        AlertDescription::DecryptError => {
            "our signature does not verify: key and certificate do not fit"
        }
        AlertDescription::ProtocolVersion => "it speaks another version of TLS",
        _ => return format!("TLS alert {alert:?}"),
    };
    format!("{meaning} (TLS alert {})", name(alert))
}

/// Anything else that can go wrong with a TLS connection.
pub fn tls(error: &std::io::Error) -> String {
    match rustls_error(error) {
        Some(Error::NoCertificatesPresented) => "it presented no certificate".to_owned(),
        Some(Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::MessageTooLarge,
        )) => "it does not speak TLS at all".to_owned(),
        Some(Error::AlertReceived(received)) => {
            format!("it broke off with TLS alert {}", name(*received))
        }
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// True if and only if the other side, or the network, ended it: no decision of ours is behind it.
pub fn is_their_doing(error: &std::io::Error) -> bool {
    matches!(rustls_error(error), None | Some(Error::AlertReceived(_)))
}

fn rustls_error(error: &std::io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref::<Error>()
}

/// As RFC 8446 spells it, since that is what people search for.
fn name(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "unknown_ca".to_owned(),
        other => {
            let mut text = String::new();
            for letter in format!("{other:?}").chars() {
                if letter.is_ascii_uppercase() && !text.is_empty() {
                    text.push('_');
                }
                text.push(letter.to_ascii_lowercase());
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_spelt_as_in_the_rfc() {
        assert!(alert(AlertDescription::UnknownCA).ends_with("(TLS alert unknown_ca)"));
        assert!(
            alert(AlertDescription::CertificateRequired)
                .ends_with("(TLS alert certificate_required)")
        );
        assert!(alert(AlertDescription::AccessDenied).ends_with("(TLS alert access_denied)"));
    }
}
