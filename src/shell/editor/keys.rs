//! Keys from the bytes a terminal sends.
//!
//! A key may be many bytes and come in pieces, so the decoder keeps what it has. There is no
//! timeout: Escape alone does nothing here, and with the next key it is Alt.

/// A key, or a text pasted at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    /// Ctrl with a letter in lower case.
    Control(char),
    Enter,
    Tab,
    Backspace,
    Delete,
    Left,
    Right,
    Up,
    Down,
    Home,
    End,
    WordLeft,
    WordRight,
    KillWordLeft,
    KillWordRight,
    /// What a terminal marks as pasted; its line ends do not run anything.
    Paste(String),
}

/// Puts keys together.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    /// After `ESC [`: parameters.
    Sequence(Vec<u8>),
    /// After `ESC O`: one letter.
    Single,
    Utf8(Vec<u8>),
    Paste(Vec<u8>),
}

impl Decoder {
    /// Takes a byte; gives a key when it was the last of one.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Key> {
        match std::mem::take(&mut self.state) {
            State::Ground => self.first(byte),
            State::Escape => self.escaped(byte),
            State::Single => cursor_key(byte, false),
            State::Sequence(mut parameters) => {
                if (0x40..=0x7e).contains(&byte) {
                    return self.sequence(&parameters, byte);
                }
                // Too long for any sequence there is: not one.
                if byte >= 0x20 && parameters.len() < SEQUENCE_BYTES_MAX {
                    parameters.push(byte);
                    self.state = State::Sequence(parameters);
                }
                None
            }
            State::Utf8(mut bytes) => {
                bytes.push(byte);
                match std::str::from_utf8(&bytes) {
                    Ok(text) => text.chars().next().map(Key::Char),
                    Err(error) if error.error_len().is_none() => {
                        self.state = State::Utf8(bytes);
                        None
                    }
                    // Not UTF-8 after all; the byte may begin a key of its own.
                    Err(_) if byte < 0x80 => self.first(byte),
                    Err(_) => None,
                }
            }
            State::Paste(mut bytes) => {
                bytes.push(byte);
                if let Some(pasted) = bytes.strip_suffix(PASTE_END) {
                    return Some(Key::Paste(String::from_utf8_lossy(pasted).into_owned()));
                }
                if bytes.len() < PASTE_BYTES_MAX + PASTE_END.len() {
                    self.state = State::Paste(bytes);
                }
                None
            }
        }
    }

    fn first(&mut self, byte: u8) -> Option<Key> {
        match byte {
            b'\r' | b'\n' => Some(Key::Enter),
            b'\t' => Some(Key::Tab),
            0x7f | 0x08 => Some(Key::Backspace),
            0x1b => {
                self.state = State::Escape;
                None
            }
            1..=26 => Some(Key::Control(char::from(byte + b'a' - 1))),
            0x20..=0x7e => Some(Key::Char(char::from(byte))),
            0xc2..=0xf4 => {
                self.state = State::Utf8(vec![byte]);
                None
            }
            _ => None,
        }
    }

    fn escaped(&mut self, byte: u8) -> Option<Key> {
        match byte {
            b'[' => self.state = State::Sequence(Vec::new()),
            b'O' => self.state = State::Single,
            0x1b => self.state = State::Escape,
            b'b' => return Some(Key::WordLeft),
            b'f' => return Some(Key::WordRight),
            b'd' => return Some(Key::KillWordRight),
            0x7f | 0x08 => return Some(Key::KillWordLeft),
            _ => {}
        }
        None
    }

    fn sequence(&mut self, parameters: &[u8], last: u8) -> Option<Key> {
        // `1;5C` and `1;3C` are Right with Ctrl and with Alt.
        let is_by_word = parameters.ends_with(b";5") || parameters.ends_with(b";3");
        if last != b'~' {
            return cursor_key(last, is_by_word);
        }
        match parameters {
            b"1" | b"7" => Some(Key::Home),
            b"4" | b"8" => Some(Key::End),
            b"3" => Some(Key::Delete),
            b"3;5" | b"3;3" => Some(Key::KillWordRight),
            b"200" => {
                self.state = State::Paste(Vec::new());
                None
            }
            _ => None,
        }
    }
}

fn cursor_key(last: u8, is_by_word: bool) -> Option<Key> {
    match last {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' if is_by_word => Some(Key::WordRight),
        b'D' if is_by_word => Some(Key::WordLeft),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'H' => Some(Key::Home),
        b'F' => Some(Key::End),
        _ => None,
    }
}

const PASTE_END: &[u8] = b"\x1b[201~";

/// More than a statement may have; what is longer is not kept in memory.
const PASTE_BYTES_MAX: usize = 64 << 10;

/// No key has longer parameters.
const SEQUENCE_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.push(*byte)).collect()
    }

    /// Scenario: what terminals send for keys, byte by byte.
    /// Guarantees: each is one key.
    #[test]
    fn keys_are_put_together() {
        assert_eq!(
            keys(b"a\r\t\x7f\x01"),
            [Key::Char('a'), Key::Enter, Key::Tab, Key::Backspace, Key::Control('a')]
        );
        assert_eq!(
            keys("\u{e4}\u{1f600}".as_bytes()),
            [Key::Char('\u{e4}'), Key::Char('\u{1f600}')]
        );
        assert_eq!(
            keys(b"\x1b[A\x1bOB\x1b[1;5C\x1b[1;3D"),
            [Key::Up, Key::Down, Key::WordRight, Key::WordLeft]
        );
        assert_eq!(
            keys(b"\x1b[H\x1b[4~\x1b[3~\x1bb\x1b\x7f"),
            [Key::Home, Key::End, Key::Delete, Key::WordLeft, Key::KillWordLeft]
        );
        assert_eq!(
            keys(b"\x1b[200~a\nb\x1b[201~c"),
            [Key::Paste("a\nb".to_owned()), Key::Char('c')]
        );
    }

    /// Scenario: bytes that are no key.
    /// Guarantees: they are passed over, and the next key is understood.
    #[test]
    fn noise_is_passed_over() {
        assert_eq!(keys(b"\xff\xfe\xc3(x"), [Key::Char('('), Key::Char('x')]);
        assert_eq!(keys(b"\x1b[99;99zx\x1b[?1;2cy"), [Key::Char('x'), Key::Char('y')]);
        let long = [b"\x1b[".as_slice(), &[b'1'; 1000], b"\x1b[A"].concat();
        assert!(keys(&long).contains(&Key::Up));
        let open = [b"\x1b[200~".as_slice(), &vec![b'x'; 1 << 20]].concat();
        assert!(keys(&open).len() < 1 << 20);
    }
}
