//! Ids as lowercase hex, for millions of them: formatting goes through a trait object per byte.

/// The 16 digits of an id, all at once: one per byte of a `u128`.
pub(crate) fn hex(id: u64) -> [u8; 16] {
    let mut digits = u128::from(id);
    for (shift, mask) in SPREAD {
        digits = (digits | digits << shift) & mask;
    }
    // One in every byte whose digit is above 9.
    let letters = ((digits + EACH * 6) >> 4) & EACH;
    (digits + EACH * u128::from(b'0') + letters * u128::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// The 32 digits of a trace id.
pub(crate) fn hex_trace(id: &[u8; 16]) -> String {
    let number = u128::from_be_bytes(*id);
    let digits = [hex((number >> 64) as u64), hex(number as u64)];
    digits.iter().flatten().map(|digit| char::from(*digit)).collect()
}

const EACH: u128 = u128::MAX / 255;
/// Moves four bits to each byte: halves of the halves, apart.
const SPREAD: [(u32, u128); 4] = [
    (32, 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff),
    (16, 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff),
    (8, 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff),
    (4, 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_those_of_the_formatter(id: u64, trace: [u8; 16]) {
            let digits = String::from_utf8(hex(id).to_vec()).unwrap();
            prop_assert_eq!(digits, format!("{id:016x}"));
            prop_assert_eq!(hex_trace(&trace), format!("{:032x}", u128::from_be_bytes(trace)));
        }
    }
}
