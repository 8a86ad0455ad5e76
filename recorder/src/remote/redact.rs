//! Taking secrets out of text that is shown: URLs carry passwords before the host and signatures
//! in the query.

/// The text with the user part and the query of every URL in it replaced.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(is_url_end).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let (path, query) = url.split_once('?').map_or((url, None), |(p, q)| (p, Some(q)));
        let (path, fragment) = path.split_once('#').map_or((path, None), |(p, f)| (p, Some(f)));
        let authority_end = path.find('/').unwrap_or(path.len());
        let (authority, path) = path.split_at(authority_end);
        match authority.rsplit_once('@') {
            Some((_, host)) => out.extend(["***@", host]),
            None => out.push_str(authority),
        }
        out.push_str(path);
        if query.is_some() || fragment.is_some() {
            out.push_str("?***");
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn is_url_end(character: char) -> bool {
    character.is_whitespace() || matches!(character, '"' | '\'' | '<' | '>' | ')' | ']' | '}' | ',')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: P1 - no password or signature of a URL is shown, wherever it stands in a text.
    #[test]
    fn secrets_of_urls_are_not_shown() {
        for (text, expected) in [
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("no url here? none", "no url here? none"),
            ("s3://key:secret@bucket/p", "s3://***@bucket/p"),
            ("s3://a:b@c@bucket", "s3://***@bucket"),
            ("s3://a@bucket?x=1#y", "s3://***@bucket?***"),
            ("az://c/p#sig=secret", "az://c/p?***"),
            (
                "GET (https://x.blob.core.windows.net/c?sv=1&sig=secret): 403, https://u:p@h/",
                "GET (https://x.blob.core.windows.net/c?***): 403, https://***@h/",
            ),
        ] {
            assert_eq!(redact(text), expected);
        }
    }
}
