//! A run that is being recorded, as one screen.

use retake_analyzer::Pulse;

use crate::cli::Format;
use crate::output::{inert, row, table};
use crate::units::{count, count_or_dash, duration};

/// One look; `rates` are spans a second at earlier looks and this one, oldest first.
pub(crate) fn top(pulse: &Pulse, rates: &[f64], format: Format) -> String {
    let seconds = pulse.window_ns as f64 / 1e9;
    let name = if pulse.name.is_empty() { &pulse.run_id } else { &pulse.name };
    let mut text = format!(
        "{} \u{b7} {} \u{b7} {} for {} \u{b7} {} traces, {} spans, {} events dropped\n",
        inert(name),
        inert(&pulse.service),
        inert(&pulse.status),
        duration(pulse.duration_ns),
        count_or_dash(pulse.traces),
        count(pulse.spans),
        count(pulse.dropped),
    );
    if let Some(last) = rates.last().filter(|_| rates.len() > 1) {
        text.push_str(&format!("spans/s {} {last:.0}\n", sparkline(rates)));
    }
    let header = ["stage", "calls/s", "errors", "p50", "p95", "tokens/s"];
    let mut shown = table(format, &header, 1);
    for stage in &pulse.rows {
        row(
            &mut shown,
            [
                stage.stage.clone(),
                format!("{:.1}", stage.calls as f64 / seconds),
                count(i64::try_from(stage.errors).unwrap_or(i64::MAX)),
                duration(stage.p50_ns),
                duration(stage.p95_ns),
                format!("{:.0}", stage.tokens as f64 / seconds),
            ],
        );
    }
    text.push_str(&shown.to_string());
    text.push_str(&format!(
        "\nspans that began in the last {} seconds of the run\n",
        pulse.window_ns / 1_000_000_000
    ));
    text
}

/// Values as bars of a line of text, from 0 to the highest.
fn sparkline(values: &[f64]) -> String {
    let top = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let share = if top > 0.0 { value / top } else { 0.0 };
        // Eight bars; nothing at all is told from a little.
        let level = (share * 7.0).round() as usize;
        BARS.get(level).copied().unwrap_or(' ')
    };
    values.iter().map(bar).collect()
}

const BARS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: bars rise with values, from nothing to all, and nothing divides by zero.
    #[test]
    fn bars_rise_with_their_values() {
        assert_eq!(sparkline(&[0.0, 5.0, 10.0]), "\u{2581}\u{2585}\u{2588}");
        assert_eq!(sparkline(&[0.0, 0.0]), "\u{2581}\u{2581}");
        assert_eq!(sparkline(&[]), "");
    }
}
