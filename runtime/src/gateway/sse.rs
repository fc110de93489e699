//! Server-sent events, as the HTML standard defines them, with bounds.
//!
//! A [`Parser`] is a value that is fed bytes in pieces of any size: the same bytes give the same events, however they
//! are cut. Lines end in LF, CR or CRLF; a byte-order mark at the start, comments and unknown fields mean nothing; the
//! `data` lines of an event are joined by LF. What stands after the last empty line is no event.

use super::Bound;

/// The most bytes of a line, without its end.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of the data of an event.
pub const EVENT_BYTES_MAX: usize = 4 << 20;
/// The most bytes of a stream.
pub const STREAM_BYTES_MAX: usize = 64 << 20;
/// The most events of a stream.
pub const EVENTS_MAX: usize = 100_000;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type; empty for a plain message.
    pub name: String,
    /// Its data; what is not UTF-8 is replaced.
    pub data: String,
}

/// Reads events out of bytes as they come, and keeps the bytes.
#[derive(Debug, Default)]
pub struct Parser {
    raw: Vec<u8>,
    line: Vec<u8>,
    /// Whether the byte before was a CR, whose LF belongs to it.
    after_cr: bool,
    first_line_read: bool,
    event: Event,
    has_data: bool,
    events: usize,
}

impl Parser {
    /// A parser at the beginning of a stream.
    pub fn new() -> Parser {
        Parser::default()
    }

    /// Takes the next bytes and adds the events that they complete to `events`.
    ///
    /// # Errors
    /// The bound that was crossed; the events before that are there.
    pub fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Bound> {
        let room = STREAM_BYTES_MAX - self.raw.len();
        let (fits, beyond) = bytes.split_at(bytes.len().min(room));
        self.raw.extend_from_slice(fits);
        let mut rest = fits;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let text = &rest[..end.unwrap_or(rest.len())];
            if self.line.len() + text.len() > LINE_BYTES_MAX {
                return Err(Bound::Line);
            }
            self.line.extend_from_slice(text);
            let Some(end) = end else { break };
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            self.end_line(events)?;
        }
        if beyond.is_empty() { Ok(()) } else { Err(Bound::Stream) }
    }

    /// Every byte that was taken.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Every byte that was taken, without the parser.
    pub fn into_raw(self) -> Vec<u8> {
        self.raw
    }

    fn end_line(&mut self, events: &mut Vec<Event>) -> Result<(), Bound> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.first_line_read, true) && line.starts_with(BOM) {
            line.drain(..BOM.len());
        }
        if line.is_empty() {
            return self.end_event(events);
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.event.data.len() + value.len() > EVENT_BYTES_MAX {
                    return Err(Bound::Event);
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(&String::from_utf8_lossy(value));
            }
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            // A comment has no name; `id` and `retry` are about connecting again, which is nothing that is done here.
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self, events: &mut Vec<Event>) -> Result<(), Bound> {
        let event = std::mem::take(&mut self.event);
        if !std::mem::take(&mut self.has_data) {
            return Ok(());
        }
        if self.events == EVENTS_MAX {
            return Err(Bound::Events);
        }
        self.events += 1;
        events.push(event);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Vec<(String, String)> {
        read_in(bytes, &[]).0
    }

    /// Reads `bytes` cut at `cuts`.
    fn read_in(bytes: &[u8], cuts: &[usize]) -> (Vec<(String, String)>, Vec<u8>) {
        let mut parser = Parser::new();
        let mut events = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            parser.feed(&bytes[from..cut], &mut events).expect("within the bounds");
            from = cut;
        }
        (events.into_iter().map(|event| (event.name, event.data)).collect(), parser.into_raw())
    }

    fn message(data: &str) -> (String, String) {
        (String::new(), data.to_owned())
    }

    #[test]
    fn lines_end_in_lf_cr_or_both() {
        for end in ["\n", "\r", "\r\n"] {
            let text = format!("data: a{end}data:b{end}{end}event: x{end}data: c{end}{end}");
            assert_eq!(read(text.as_bytes()), [message("a\nb"), ("x".to_owned(), "c".to_owned())], "{end:?}");
        }
    }

    #[test]
    fn what_means_nothing_is_passed_over() {
        assert_eq!(read(b"\xef\xbb\xbfdata: a\n\n"), [message("a")]);
        assert_eq!(read(b": hi\nid: 7\nretry: 1\nother: x\ndata: a\n:\n\n"), [message("a")]);
        assert_eq!(read(b"\n\nevent: x\n\ndata: a\n\n"), [message("a")], "a name without data is no event");
        assert_eq!(read(b"data\n\n"), [message("")], "a field without a colon is an empty one");
        assert_eq!(read(b"data:  a\n\n"), [message(" a")], "one space belongs to the colon");
    }

    #[test]
    fn what_stands_after_the_last_empty_line_is_no_event() {
        assert_eq!(read(b"data: a\n\ndata: b\n"), [message("a")]);
    }

    #[test]
    fn a_line_of_ten_mebibytes_is_refused_before_it_is_kept() {
        let mut parser = Parser::new();
        let mut events = Vec::new();
        let piece = vec![b'x'; 1 << 16];
        let mut fed = 0;
        let refused = loop {
            fed += piece.len();
            match parser.feed(&piece, &mut events) {
                Ok(()) => assert!(fed <= 10 << 20, "ten mebibytes were taken for a line"),
                Err(bound) => break bound,
            }
        };
        assert_eq!(refused, Bound::Line);
        assert_eq!(fed, LINE_BYTES_MAX + piece.len());
        let mut whole = vec![b'x'; 10 << 20];
        whole.extend(b"\n\n");
        assert_eq!(Parser::new().feed(&whole, &mut events), Err(Bound::Line));
        let mut most = b"data:".to_vec();
        most.resize(LINE_BYTES_MAX, b'y');
        most.extend(b"\n\n");
        assert_eq!(read(&most)[0].1.len(), LINE_BYTES_MAX - 5);
    }

    #[test]
    fn the_other_bounds_hold_too() {
        let line = format!("data:{}\n", "y".repeat(LINE_BYTES_MAX - 5));
        let mut parser = Parser::new();
        let mut events = Vec::new();
        for _ in 0..4 {
            parser.feed(line.as_bytes(), &mut events).expect("within the bounds");
        }
        assert_eq!(parser.feed(line.as_bytes(), &mut events), Err(Bound::Event));

        let mut parser = Parser::new();
        parser.feed("data:\n\n".repeat(EVENTS_MAX).as_bytes(), &mut events).expect("within the bounds");
        assert_eq!(events.len(), EVENTS_MAX);
        assert_eq!(parser.feed(b"data:\n\n", &mut events), Err(Bound::Events));

        let mut parser = Parser::new();
        let comment = format!(":{}\n", "z".repeat((1 << 20) - 2));
        for _ in 0..64 {
            parser.feed(comment.as_bytes(), &mut events).expect("within the bounds");
        }
        assert_eq!(parser.feed(b":", &mut events), Err(Bound::Stream));
        assert_eq!(parser.raw().len(), STREAM_BYTES_MAX);
    }

    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            Just(b"data: ".to_vec()),
            Just(b"data".to_vec()),
            Just(b"event:x".to_vec()),
            Just(b":".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n\n".to_vec()),
            Just(b"\xef\xbb\xbf".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(word, 0..40).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_its_events_and_bytes_are_the_same(
            bytes in soup(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let (events, raw) = read_in(&bytes, &cuts);
            prop_assert_eq!(&events, &read(&bytes));
            prop_assert_eq!(&raw, &bytes);
            let each: Vec<usize> = (0..bytes.len()).collect();
            prop_assert_eq!(read_in(&bytes, &each).0, events);
        }
    }
}
