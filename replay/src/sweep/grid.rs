//! The settings of a sweep: values of each axis, and all their combinations.

use serde::Serialize;

/// A setting and the values it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Axis {
    /// Dotted name.
    pub setting: String,
    /// Values as written, in order, none twice.
    pub values: Vec<String>,
}

/// One combination: a value for every axis.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Point {
    /// `NAME=VALUE`, in the order of the axes.
    pub assignments: Vec<String>,
    /// Those of axes with more than one value, for people.
    pub label: String,
}

/// Why a grid makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GridError {
    /// Not an axis.
    #[error(
        "read grid {0:?}: write NAME=V1,V2,... or a range NAME=FROM..TO:xFACTOR or :+STEP, such as \
         embed.batch_size=1,4,16 or embed.batch_size=1..256:x2"
    )]
    Malformed(String),
    /// The same setting in two axes.
    #[error("read grid: {0} is given twice; name all its values in one --set")]
    Twice(String),
    /// Nothing to compare.
    #[error("read grid: every setting has one value, so there is nothing to compare")]
    Single,
    /// Too many combinations.
    #[error("read grid: {0} combinations are more than {POINTS_MAX}; name fewer values")]
    TooMany(usize),
}

impl Axis {
    /// Reads `NAME=V1,V2,...`, `NAME=FROM..TO:xFACTOR` or `NAME=FROM..TO:+STEP`.
    ///
    /// # Errors
    /// [`GridError::Malformed`], [`GridError::TooMany`].
    pub fn parse(text: &str) -> Result<Self, GridError> {
        let malformed = || GridError::Malformed(text.to_owned());
        let (setting, values) = text.split_once('=').ok_or_else(malformed)?;
        let setting = setting.trim().to_owned();
        if setting.is_empty() || values.trim().is_empty() {
            return Err(malformed());
        }
        let mut found = Vec::new();
        for value in values_of(values) {
            let range = match value.split_once("..") {
                Some((from, rest)) if !value.starts_with('[') => range(from, rest, text)?,
                _ => vec![value.to_owned()],
            };
            for value in range {
                if value.is_empty() {
                    return Err(malformed());
                }
                if !found.contains(&value) {
                    found.push(value);
                }
            }
        }
        Ok(Self { setting, values: found })
    }
}

/// The values between commas; those inside the brackets of a list part no values.
fn values_of(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    let parts = text.split(move |c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim)
}

/// The whole numbers of a range, its end included when a step meets it.
fn range(from: &str, rest: &str, text: &str) -> Result<Vec<String>, GridError> {
    let malformed = || GridError::Malformed(text.to_owned());
    let (to, step) = rest.split_once(':').unwrap_or((rest, "+1"));
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| malformed());
    let (from, to) = (number(from)?, number(to)?);
    let (factor, addend) = match (step.strip_prefix('x'), step.strip_prefix('+')) {
        (Some(factor), _) => (number(factor)?, 0),
        (_, Some(addend)) => (1, number(addend)?),
        _ => return Err(malformed()),
    };
    let grows = (factor > 1 && from > 0) || addend > 0;
    if from > to || !grows {
        return Err(malformed());
    }
    let next = |value: &u64| value.checked_mul(factor)?.checked_add(addend);
    let values: Vec<String> = std::iter::successors(Some(from), next)
        .take_while(|value| *value <= to)
        .take(POINTS_MAX + 1)
        .map(|value| value.to_string())
        .collect();
    if values.len() > POINTS_MAX { Err(GridError::TooMany(values.len())) } else { Ok(values) }
}

/// All combinations, the last axis turning fastest.
///
/// # Errors
/// See [`GridError`].
pub fn grid(axes: &[Axis]) -> Result<Vec<Point>, GridError> {
    for (position, axis) in axes.iter().enumerate() {
        if axes.iter().take(position).any(|other| other.setting == axis.setting) {
            return Err(GridError::Twice(axis.setting.clone()));
        }
    }
    let count = axes.iter().try_fold(1_usize, |n, axis| n.checked_mul(axis.values.len()));
    match count.unwrap_or(usize::MAX) {
        0 | 1 => return Err(GridError::Single),
        count if count > POINTS_MAX => return Err(GridError::TooMany(count)),
        _ => {}
    }
    let mut points = vec![Point { assignments: Vec::new(), label: String::new() }];
    for axis in axes {
        points = points
            .iter()
            .flat_map(|point| axis.values.iter().map(|value| point.with(axis, value)))
            .collect();
    }
    Ok(points)
}

impl Point {
    fn with(&self, axis: &Axis, value: &str) -> Self {
        let assignment = format!("{}={value}", axis.setting);
        let mut point = self.clone();
        if axis.values.len() > 1 {
            let comma = if point.label.is_empty() { "" } else { ", " };
            point.label = format!("{}{comma}{assignment}", point.label);
        }
        point.assignments.push(assignment);
        point
    }

    /// The value of a setting, as written.
    #[must_use]
    pub fn value(&self, setting: &str) -> Option<&str> {
        let mut pairs = self.assignments.iter().filter_map(|text| text.split_once('='));
        pairs.find(|(name, _)| *name == setting).map(|(_, value)| value)
    }
}

/// More settings would take a day to measure and a screenful to read, halved or not.
pub const POINTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Result<Vec<String>, GridError> {
        let axes: Result<Vec<Axis>, GridError> =
            texts.iter().map(|text| Axis::parse(text)).collect();
        Ok(grid(&axes?)?.into_iter().map(|point| point.label).collect())
    }

    #[test]
    fn a_grid_is_every_combination() {
        assert_eq!(
            labels(&["embed.batch_size=4,16", "workers=1, 2", "seed=7"]).unwrap(),
            [
                "embed.batch_size=4, workers=1",
                "embed.batch_size=4, workers=2",
                "embed.batch_size=16, workers=1",
                "embed.batch_size=16, workers=2"
            ]
        );
        let doubled = Axis::parse("b=1..256:x2").unwrap().values;
        assert_eq!(doubled, ["1", "2", "4", "8", "16", "32", "64", "128", "256"]);
        assert_eq!(Axis::parse("b=3..10:+3,10,3").unwrap().values, ["3", "6", "9", "10"]);
        assert_eq!(Axis::parse("b=1..3").unwrap().values, ["1", "2", "3"]);
        let lists = Axis::parse(r#"s=["bm25", "mmr"],[],["a..b"]"#).unwrap().values;
        assert_eq!(lists, [r#"["bm25", "mmr"]"#, "[]", r#"["a..b"]"#]);
        let axes = [Axis::parse("a=1,2").unwrap(), Axis::parse("b=x").unwrap()];
        let point = &grid(&axes).unwrap()[1];
        assert_eq!(
            (point.value("a"), point.value("b"), point.value("c")),
            (Some("2"), Some("x"), None)
        );
        assert_eq!(point.assignments, ["a=2", "b=x"]);
    }

    #[test]
    fn what_is_no_grid_is_refused() {
        for wrong in
            ["b", "=1", "b=", "b=1,,2", "b=2..1", "b=0..8:x2", "b=1..9:x1", "b=1..9:-1", "b=a..b"]
        {
            assert!(matches!(Axis::parse(wrong), Err(GridError::Malformed(_))), "{wrong}");
        }
        assert_eq!(labels(&["a=1", "b=2"]), Err(GridError::Single));
        assert_eq!(labels(&["a=1,2", "a=3"]), Err(GridError::Twice("a".to_owned())));
        assert_eq!(labels(&["a=1..64", "b=1..64"]), Err(GridError::TooMany(4096)));
        assert!(matches!(Axis::parse("a=1..999999999"), Err(GridError::TooMany(_))));
    }
}
