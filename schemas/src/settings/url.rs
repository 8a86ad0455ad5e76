//! Addresses of services, fit to be recorded.

/// `postgres://user:secret@host/db` without the secret, and without secret parameters.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let authority = match authority.rsplit_once('@') {
        Some((user_info, host)) => {
            let user = user_info.split_once(':').map_or(user_info, |(user, _)| user);
            format!("{user}@{host}")
        }
        None => authority.to_owned(),
    };
    // `?password=` is the other place where PostgreSQL takes one, and services take keys there.
    let path = match path.split_once('?') {
        Some((path, query)) => {
            let kept: Vec<_> = query.split('&').filter(|pair| !is_secret_pair(pair)).collect();
            format!("{path}?{}", kept.join("&"))
        }
        None => path.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

fn is_secret_pair(pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name).to_ascii_lowercase();
    SECRET_PARAMETERS.iter().any(|secret| name.ends_with(secret))
}

/// Ends of the names of URL parameters that hold a secret.
const SECRET_PARAMETERS: [&str; 7] =
    ["password", "passwd", "token", "key", "secret", "signature", "sig"];

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: P1 - a database password never reaches the run's settings.
    #[test]
    fn passwords_are_not_recorded() {
        for (url, expected) in [
            ("postgres://u:p@h:5432/d", "postgres://u@h:5432/d"),
            ("postgres://u:p@ss@h/d", "postgres://u@h/d"),
            ("postgres://u@h/d?password=p&x=1", "postgres://u@h/d?x=1"),
            ("postgres://h/d?password=p", "postgres://h/d?"),
            ("sqlite:rag.sqlite", "sqlite:rag.sqlite"),
            ("http://h/v1?api_key=k&page=2&X-Amz-Signature=s", "http://h/v1?page=2"),
        ] {
            assert_eq!(without_password(url), expected);
        }
    }
}
