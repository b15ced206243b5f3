//! Header blocks as bytes, right ones and wrong ones; of those that come, only the status. Source: RFC 7541.

/// Entries of the static table that are whole fields.
pub(crate) const METHOD_GET: u8 = 0x82;
pub(crate) const METHOD_POST: u8 = 0x83;
pub(crate) const SCHEME_HTTP: u8 = 0x86;
/// Names of the static table.
pub(crate) const AUTHORITY: u64 = 1;
pub(crate) const PATH: u64 = 4;
/// The first entry of the dynamic table.
pub(crate) const NEWEST: u64 = 62;

/// A number after the bits of `first`, of which `bits` are left for it. Source: RFC 7541, 5.1.
pub(crate) fn integer(first: u8, bits: u32, value: u64) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![first | low_byte(value)];
    }
    let mut bytes = vec![first | low_byte(most)];
    let mut rest = value - most;
    while rest > 0x7f {
        bytes.push(low_byte(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    bytes.push(low_byte(rest));
    bytes
}

fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

fn string(text: &[u8]) -> Vec<u8> {
    [&integer(0, 7, text.len() as u64), text].concat()
}

/// The entry with that index.
pub(crate) fn indexed(index: u64) -> Vec<u8> {
    integer(0x80, 7, index)
}

/// A field that enters no table, with a name of its own.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    [vec![0], string(name.as_bytes()), string(value.as_bytes())].concat()
}

/// The same, with the name of an entry.
pub(crate) fn field_named(index: u64, value: &str) -> Vec<u8> {
    [integer(0, 4, index), string(value.as_bytes())].concat()
}

/// A field that no table may ever hold.
pub(crate) fn field_never_indexed(name: &str, value: &str) -> Vec<u8> {
    [vec![0x10], string(name.as_bytes()), string(value.as_bytes())].concat()
}

/// A field that becomes the newest entry of the dynamic table.
pub(crate) fn field_indexed(name: &str, value: &str) -> Vec<u8> {
    [vec![0x40], string(name.as_bytes()), string(value.as_bytes())].concat()
}

/// A field whose value is said to be Huffman-coded.
pub(crate) fn field_huffman(name: &str, coded: &[u8]) -> Vec<u8> {
    [vec![0], string(name.as_bytes()), integer(0x80, 7, coded.len() as u64), coded.to_vec()].concat()
}

/// A change of the dynamic table's size.
pub(crate) fn table_size(bytes: u64) -> Vec<u8> {
    integer(0x20, 5, bytes)
}

/// Many fields, each with a name of its own.
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// `GET target` of the service `s1`.
pub(crate) fn get(target: &str) -> Vec<u8> {
    [vec![METHOD_GET, SCHEME_HTTP], field_named(AUTHORITY, "s1"), field_named(PATH, target)].concat()
}

/// `POST target` to the service `s1`.
pub(crate) fn post(target: &str) -> Vec<u8> {
    [vec![METHOD_POST, SCHEME_HTTP], field_named(AUTHORITY, "s1"), field_named(PATH, target)].concat()
}

/// The status of a response's block, which comes first in it. Without a dynamic table, which the client forbids, it is
/// an entry of the static table, or a literal with that name.
pub(crate) fn status(mut block: &[u8]) -> Option<u16> {
    while let [0x20..=0x3f, ..] = block {
        block = behind_table_size(block);
    }
    match block {
        [indexed @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]),
        [0x08 | 0x18 | 0x48, length @ 0x80..=0xff, rest @ ..] => {
            huffman_number(rest.get(..usize::from(length & 0x7f))?)
        }
        [0x08 | 0x18 | 0x48, 3, rest @ ..] => std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok(),
        _ => None,
    }
}

/// What follows a change of the table's size, a number that may go on in more bytes.
fn behind_table_size(block: &[u8]) -> &[u8] {
    let goes_on = block[1..].iter().take_while(|byte| **byte >= 0x80).count();
    let length = if block[0] == 0x3f { 2 + goes_on } else { 1 };
    block.get(length..).unwrap_or_default()
}

/// Three digits. `0`, `1` and `2` have five bits, the others six. Source: RFC 7541, appendix B.
fn huffman_number(bytes: &[u8]) -> Option<u16> {
    let mut bits = bytes.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    bits <<= 64 - 8 * u32::try_from(bytes.len()).ok().filter(|length| (1..=3).contains(length))?;
    let mut number = 0;
    for _ in 0..3 {
        let (digit, length) = match (bits >> 59, bits >> 58) {
            (short @ 0..=2, _) => (short, 5),
            (_, long @ 0x19..=0x1f) => (long - 0x16, 6),
            _ => return None,
        };
        number = number * 10 + u16::try_from(digit).ok()?;
        bits <<= length;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7541, C.1 and C.6.1, and the statuses that a node sends as digits.
    #[test]
    fn examples_of_the_standard_are_met() {
        assert_eq!(integer(0, 5, 10), [10]);
        assert_eq!(integer(0, 5, 1337), [31, 154, 10]);
        assert_eq!(indexed(2), [METHOD_GET]);
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status(&[0x20, 0x48, 0x03, b'4', b'3', b'1']), Some(431));
        assert_eq!(status(&[0x20, 0x3f, 0xe1, 0x1f, 0x88]), Some(200));
        assert_eq!(status(&[0x20, 0x8d]), Some(404));
        assert_eq!(status(&[0xbe]), None);
    }
}
