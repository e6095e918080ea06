//! Values in little room.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value as JSON: half the room that its maps and strings take, or less, and in one piece. For
/// what a mirror holds ten thousand of, and what is looked at only when its turn comes.
pub struct Packed<T> {
    json: Box<str>,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned + Default> Packed<T> {
    /// Packs a value.
    pub fn pack(value: &T) -> Self {
        let json = serde_json::to_string(value).unwrap_or_default();
        Packed { json: json.into(), value: PhantomData }
    }

    /// The value that was packed. One that JSON cannot carry, such as a time before the year 0,
    /// comes back empty, as if nobody had written it yet.
    pub fn unpack(&self) -> T {
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

impl<T: Serialize + DeserializeOwned + Default> Default for Packed<T> {
    fn default() -> Self {
        Packed::pack(&T::default())
    }
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Packed { json: self.json.clone(), value: PhantomData }
    }
}

impl<T> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl<T> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.json)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let value = BTreeMap::from([("a", "\u{0}\"\\é"), ("b", "")]);
        let value: BTreeMap<String, String> =
            value.into_iter().map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
        assert_eq!(Packed::pack(&value).unpack(), value);
        assert_eq!(Packed::<BTreeMap<String, String>>::default().unpack(), BTreeMap::new());
    }
}
