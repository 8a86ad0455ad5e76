//! The machine: the program, its environment, clocks and ports.

use std::net::{SocketAddr, TcpListener};

use super::Finding;

pub(super) fn program() -> Finding {
    let version = format!("retake {}", env!("CARGO_PKG_VERSION"));
    match std::env::current_exe() {
        Ok(path) => Finding::good("program", version).at(&path),
        Err(_) => Finding::good("program", version),
    }
}

/// Variables that look like ours and are not: a misspelt one would be passed over in silence.
pub(super) fn variables() -> Vec<Finding> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<String> = names.filter(|name| is_unknown(name)).collect();
    unknown.sort();
    let finding = |name: String| {
        let advice =
            "settings have their section in the name, as RETAKE_RAG__EMBED__BATCH_SIZE has";
        Finding::note("environment", "a variable that means nothing", advice).of(name)
    };
    unknown.into_iter().map(finding).collect()
}

fn is_unknown(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("RETAKE_") else { return false };
    // With a section it is a setting, and checked where settings are read.
    !rest.contains("__") && !rest.starts_with("TEST_") && !VARIABLES.contains(&rest)
}

pub(super) fn clock() -> Finding {
    let source = std::fs::read_to_string(CLOCK_SOURCE).unwrap_or_default();
    match source.trim() {
        "tsc" => Finding::good("clock", "tsc: a time stamp costs about 10 ns"),
        "" => Finding::good("clock", "the system's monotonic clock"),
        other => Finding::note(
            "clock",
            format!("{other}: a time stamp is a call"),
            "spans cost more here; the kernel trusts no cheaper clock on this machine",
        )
        .of(CLOCK_SOURCE),
    }
}

/// Whether the addresses that listeners have unless told otherwise are free.
pub(super) fn ports() -> Vec<Finding> {
    let mut taken = Vec::new();
    for (port, verb) in PORTS {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if let Err(error) = TcpListener::bind(address) {
            let advice = format!("that is fine if it is retake; else `retake {verb} 127.0.0.1:0`");
            let found = match error.kind() {
                std::io::ErrorKind::AddrInUse => "somebody listens there".to_owned(),
                _ => format!("nobody can listen there: {error}"),
            };
            taken.push(Finding::note("port", found, advice).of(address.to_string()));
        }
    }
    if taken.is_empty() {
        let all = PORTS.map(|(port, _)| port.to_string()).join(", ");
        taken.push(Finding::good("ports", format!("free: {all}")));
    }
    taken
}

/// Variables that are no settings; see docs/configuration.md.
const VARIABLES: [&str; 7] =
    ["STORE", "MODEL_DIR", "TOKEN", "RUNS", "GIT", "COMPLETE", "TOOLS_DIR"];
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// Ports, and what moves a listener to another one.
const PORTS: [(u16, &str); 3] =
    [(4318, "serve --listen"), (4317, "serve --grpc"), (8318, "proxy --to URL --listen")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_variables_are_told_from_settings() {
        assert!(is_unknown("RETAKE_STROE"));
        assert!(is_unknown("RETAKE_CAPTURE"));
        for known in ["RETAKE_STORE", "RETAKE_RECORD__CAPTURE", "RETAKE_TEST_X", "HOME"] {
            assert!(!is_unknown(known), "{known}");
        }
    }
}
