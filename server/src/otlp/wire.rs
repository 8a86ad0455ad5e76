//! The few messages that are answers: three fields in protobuf and JSON, so written by hand.

use std::time::Duration;

use serde_json::json;

use crate::ingest::{Accepted, Encoding, Signal};

/// `Export{Trace,Logs,Metrics}ServiceResponse`. Its fields have the same numbers for each signal.
pub(crate) fn export_response(signal: Signal, encoding: Encoding, accepted: &Accepted) -> Vec<u8> {
    let Accepted { rejected, message, .. } = accepted;
    let is_partial = *rejected > 0 || !message.is_empty();
    match encoding {
        Encoding::Protobuf if is_partial => {
            let mut partial = Vec::new();
            put_int(&mut partial, 1, *rejected);
            put_bytes(&mut partial, 2, message.as_bytes());
            let mut response = Vec::new();
            put_bytes(&mut response, 1, &partial);
            response
        }
        Encoding::Protobuf => Vec::new(),
        Encoding::Json if is_partial => {
            let rejected_name = match signal {
                Signal::Traces => "rejectedSpans",
                Signal::Logs => "rejectedLogRecords",
                Signal::Metrics => "rejectedDataPoints",
            };
            // 64-bit numbers are strings in protobuf JSON.
            let partial = json!({ rejected_name: rejected.to_string(), "errorMessage": message });
            json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
        Encoding::Json => b"{}".to_vec(),
    }
}

/// `google.rpc.Status`, with a `RetryInfo` if there is something to wait for.
pub(crate) fn status(
    encoding: Encoding,
    code: u16,
    message: &str,
    retry_after: Option<Duration>,
) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => {
            let mut status = Vec::new();
            put_int(&mut status, 1, u64::from(code));
            put_bytes(&mut status, 2, message.as_bytes());
            if let Some(wait) = retry_after {
                put_bytes(&mut status, 3, &retry_info(wait));
            }
            status
        }
        Encoding::Json => {
            let mut status = json!({ "code": code, "message": message });
            if let Some(wait) = retry_after {
                let delay = format!("{}.{:09}s", wait.as_secs(), wait.subsec_nanos());
                status["details"] = json!([{ "@type": RETRY_INFO, "retryDelay": delay }]);
            }
            status.to_string().into_bytes()
        }
    }
}

/// `google.protobuf.Any` of a `google.rpc.RetryInfo`.
fn retry_info(wait: Duration) -> Vec<u8> {
    let mut duration = Vec::new();
    put_int(&mut duration, 1, wait.as_secs());
    put_int(&mut duration, 2, u64::from(wait.subsec_nanos()));
    let mut info = Vec::new();
    put_bytes(&mut info, 1, &duration);
    let mut any = Vec::new();
    put_bytes(&mut any, 1, RETRY_INFO.as_bytes());
    put_bytes(&mut any, 2, &info);
    any
}

/// A number of wire type 0. Zero is the default and left out.
fn put_int(message: &mut Vec<u8>, field: u8, value: u64) {
    if value > 0 {
        message.push(field << 3);
        put_varint(message, value);
    }
}

/// Bytes of wire type 2. None are the default and left out.
fn put_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        message.push(field << 3 | 2);
        put_varint(message, bytes.len() as u64);
        message.extend_from_slice(bytes);
    }
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value > 0x7F {
        message.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(rejected: u64, message: &str) -> Accepted {
        Accepted { accepted: 9, rejected, message: message.to_owned() }
    }

    /// Scenario: bodies taken whole, in part, and with a warning.
    /// Guarantees: O2 - the counts a sender reads are the ones that were meant.
    #[test]
    fn responses_are_what_the_protocol_says() {
        let protobuf = |a: &Accepted| export_response(Signal::Traces, Encoding::Protobuf, a);
        assert_eq!(protobuf(&accepted(0, "")), b"");
        assert_eq!(protobuf(&accepted(3, "no")), b"\x0A\x06\x08\x03\x12\x02no");
        assert_eq!(protobuf(&accepted(300, "")), b"\x0A\x03\x08\xAC\x02");
        assert_eq!(protobuf(&accepted(0, "old")), b"\x0A\x05\x12\x03old");
        assert_eq!(protobuf(&accepted(0, &"x".repeat(200))).len(), 200 + 3 + 3);
        let json = |signal| {
            let text = export_response(signal, Encoding::Json, &accepted(3, "\"no\""));
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()["partialSuccess"].clone()
        };
        let said = "\"no\"";
        assert_eq!(json(Signal::Traces), json!({"rejectedSpans": "3", "errorMessage": said}));
        assert_eq!(json(Signal::Logs), json!({"rejectedLogRecords": "3", "errorMessage": said}));
        assert_eq!(json(Signal::Metrics), json!({"rejectedDataPoints": "3", "errorMessage": said}));
        assert_eq!(export_response(Signal::Logs, Encoding::Json, &accepted(0, "")), b"{}");
    }

    #[test]
    fn a_status_says_when_to_come_again() {
        let wait = Some(Duration::from_millis(1500));
        assert_eq!(status(Encoding::Protobuf, 3, "no", None), b"\x08\x03\x12\x02no");
        let any = b"\x0A\x28type.googleapis.com/google.rpc.RetryInfo\x12\x0A\x0A\x08\x08\x01\x10\x80\xCA\xB5\xEE\x01";
        let any = [&[0x1A, any.len() as u8], &any[..]].concat();
        assert_eq!(status(Encoding::Protobuf, 8, "", wait), [&b"\x08\x08"[..], &any].concat());
        let json: serde_json::Value =
            serde_json::from_slice(&status(Encoding::Json, 8, "no", wait)).unwrap();
        assert_eq!(json["details"][0]["retryDelay"], "1.500000000s");
        assert_eq!(json["code"], 8);
    }
}
