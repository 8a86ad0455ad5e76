//! Card numbers and IBANs: digits alone prove nothing, check digits do.
//!
//! Both are written with or without blanks or hyphens, and other digits or words may stand right
//! behind them (`4111 1111 1111 1111 12/27`), so every end at a gap is tried.

use std::ops::Range;

/// Adds every card number: 13 to 19 digits whose Luhn sum is right.
pub(super) fn find_cards(text: &str, mut found: impl FnMut(Range<usize>)) {
    if digits(text) < CARD_DIGITS_MIN {
        return;
    }
    find(
        text,
        u8::is_ascii_digit,
        |token| {
            let len = token.len();
            let is_card = (CARD_DIGITS_MIN..=CARD_DIGITS_MAX).contains(&len)
            && luhn(token)
            // All zeros pass every sum.
            && token.iter().any(|digit| *digit != b'0');
            let reach = if len >= CARD_DIGITS_MAX { Reach::Full } else { Reach::More };
            (is_card, reach)
        },
        &mut found,
    );
}

/// Adds every IBAN: a country, check digits, and an account, whose remainder mod 97 is 1.
pub(super) fn find_ibans(text: &str, mut found: impl FnMut(Range<usize>)) {
    if digits(text) < IBAN_DIGITS_MIN {
        return;
    }
    find(
        text,
        u8::is_ascii_alphanumeric,
        |token| {
            let begins = token.iter().zip(0..4).all(|(byte, place)| {
                if place < 2 { byte.is_ascii_alphabetic() } else { byte.is_ascii_digit() }
            });
            let is_iban = (IBAN_CHARS_MIN..=IBAN_CHARS_MAX).contains(&token.len())
                && begins
                && mod_97(token) == 1;
            let reach =
                if begins && token.len() < IBAN_CHARS_MAX { Reach::More } else { Reach::Full };
            (is_iban, reach)
        },
        &mut found,
    );
}

/// Whether a longer candidate from the same start may still be one.
#[derive(PartialEq, Eq)]
enum Reach {
    More,
    Full,
}

/// Looks at runs of characters of one class, parted by single blanks or hyphens. From every start
/// of a part, whole parts are taken as long as `judge` wants more; the longest one it accepts is
/// found.
fn find(
    text: &str,
    is_part: impl Fn(&u8) -> bool,
    judge: impl Fn(&[u8]) -> (bool, Reach),
    found: &mut impl FnMut(Range<usize>),
) {
    let parts = parts(text.as_bytes(), is_part);
    let mut first = 0;
    let mut token = Vec::with_capacity(2 * IBAN_CHARS_MAX);
    while first < parts.len() {
        token.clear();
        let mut accepted = None;
        for (index, part) in parts.iter().enumerate().skip(first) {
            if index > first && !is_joined(text.as_bytes(), parts.get(index - 1), part) {
                break;
            }
            let bytes = text.as_bytes().get(part.clone()).unwrap_or_default();
            if token.len() + bytes.len() > IBAN_CHARS_MAX {
                break;
            }
            token.extend_from_slice(bytes);
            let (is_accepted, reach) = judge(&token);
            if is_accepted {
                accepted = Some(index);
            }
            if reach == Reach::Full {
                break;
            }
        }
        match (accepted, accepted.and_then(|last| parts.get(last)), parts.get(first)) {
            (Some(index), Some(last), Some(begin)) => {
                found(begin.start..last.end);
                first = index + 1;
            }
            _ => first += 1,
        }
    }
}

fn parts(bytes: &[u8], is_part: impl Fn(&u8) -> bool) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| is_part(byte)) {
        match parts.last_mut() {
            Some(part) if part.end == at => part.end = at + 1,
            _ => parts.push(at..at + 1),
        }
    }
    parts
}

fn is_joined(bytes: &[u8], before: Option<&Range<usize>>, part: &Range<usize>) -> bool {
    before.is_some_and(|before| matches!(bytes.get(before.end..part.start), Some(b" " | b"-")))
}

/// Most texts end here: counting is one vectorised pass.
fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .zip([false, true].into_iter().cycle())
        .map(|(digit, is_doubled)| {
            let value = u32::from(digit - b'0') * if is_doubled { 2 } else { 1 };
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The remainder as ISO 13616 takes it: the first four characters go last, letters count from 10.
fn mod_97(iban: &[u8]) -> u32 {
    let (head, rest) = iban.split_at(iban.len().min(4));
    rest.iter().chain(head).fold(0, |remainder, byte| {
        let value = char::from(*byte).to_digit(36).unwrap_or_default();
        let shift = if value > 9 { 100 } else { 10 };
        (remainder * shift + value) % 97
    })
}

const CARD_DIGITS_MIN: usize = 13;
const CARD_DIGITS_MAX: usize = 19;
const IBAN_CHARS_MIN: usize = 15;
/// No country has fewer; accounts may hold letters.
const IBAN_DIGITS_MIN: usize = 6;
const IBAN_CHARS_MAX: usize = 34;

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        find_cards(text, |range| found.push(&text[range]));
        found
    }

    fn ibans(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        find_ibans(text, |range| found.push(&text[range]));
        found
    }

    #[test]
    fn cards_are_found_in_every_spelling_and_company() {
        for card in ["4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004"] {
            for text in [format!("pay {card}."), format!("{card} 12/27 123"), format!("nr{card}x")]
            {
                assert_eq!(cards(&text), [card], "{text}");
            }
        }
        assert_eq!(cards("378282246310005, 6011 1111 1111 1117").len(), 2);
        assert_eq!(cards("12 4111111111111111"), ["4111111111111111"], "digits in front");
    }

    #[test]
    fn other_numbers_are_no_cards() {
        for text in ["4111111111111112", "1795000000000000000", "0000000000000000", "411111111111"]
        {
            assert_eq!(cards(text), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn ibans_are_found_by_their_check_digits() {
        for iban in ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "NO9386011117947"] {
            for text in [format!("IBAN: {iban}, thanks"), format!("{iban} BITTE"), iban.to_owned()]
            {
                assert_eq!(ibans(&text), [iban], "{text}");
            }
        }
        assert_eq!(ibans("DE89370400440532013001"), Vec::<&str>::new());
        assert_eq!(ibans("a word, two words"), Vec::<&str>::new());
    }
}
