//! `retake init`: the files that a project needs, commented, for what it is written in.

use std::path::{Path, PathBuf};

use retake_analyzer::check;

use crate::cli::Init;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::print;

pub(crate) fn run(context: &Context, args: &Init) -> Result<Code, Failure> {
    let folder = args.folder.as_path();
    if !folder.is_dir() {
        let message = format!("write into {}: there is no such folder", folder.display());
        return Err(Failure::new(Code::NotFound, message));
    }
    let project = Project::of(folder);
    context.say(&format!("this looks like {}", project.kind.said()));
    let files = [
        ("retake.toml", settings(&project)),
        ("budgets.toml", budgets()),
        (".github/workflows/retake.yml", workflow(&project)),
    ];
    if args.dry_run {
        for (name, content) in &files {
            print(&format!("# {name}\n{content}"))?;
        }
        return Ok(Code::Ok);
    }
    let mut kept = Vec::new();
    for (name, content) in &files {
        let path = folder.join(name);
        if path.exists() && !args.force {
            kept.push(*name);
            continue;
        }
        write(&path, content)?;
        print(name)?;
    }
    if ignore(folder)? {
        print(".gitignore")?;
    }
    if !kept.is_empty() {
        context.say(&format!("left as they are: {}; --force replaces them", kept.join(", ")));
    }
    context.say(&format!("next: retake record -- {}", project.kind.command()));
    Ok(Code::Ok)
}

/// What a folder holds.
#[derive(Debug)]
struct Project {
    kind: Kind,
    name: Option<String>,
}

/// What it is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rust,
    Python,
    Node,
    Other,
}

impl Kind {
    fn said(self) -> &'static str {
        match self {
            Self::Rust => "a Rust project (Cargo.toml)",
            Self::Python => "a Python project",
            Self::Node => "a JavaScript project (package.json)",
            Self::Other => "no project whose language is known here",
        }
    }

    /// What runs it, to begin with.
    fn command(self) -> &'static str {
        match self {
            Self::Rust => "cargo run --release",
            Self::Python => "python eval.py",
            Self::Node => "node eval.js",
            Self::Other => "./eval.sh",
        }
    }

    /// What its workflow installs beforehand.
    fn setup(self) -> &'static str {
        match self {
            Self::Rust => "      - name: build\n        run: cargo build --release --locked",
            Self::Python => {
                "      - uses: actions/setup-python@v6\n        with:\n          python-version: '3.12'\n      \
                 - name: install\n        run: pip install -r requirements.txt"
            }
            Self::Node => {
                "      - uses: actions/setup-node@v6\n        with:\n          node-version: 22\n      \
                 - name: install\n        run: npm ci"
            }
            Self::Other => "      - name: install\n        run: ./install.sh",
        }
    }
}

impl Project {
    fn of(folder: &Path) -> Self {
        let holds = |name: &str| folder.join(name).is_file();
        let kind = if holds("Cargo.toml") {
            Kind::Rust
        } else if ["pyproject.toml", "requirements.txt", "setup.py"].iter().any(|name| holds(name))
        {
            Kind::Python
        } else if holds("package.json") {
            Kind::Node
        } else {
            Kind::Other
        };
        Self { kind, name: name(folder, kind) }
    }
}

/// The name that the project gives itself.
fn name(folder: &Path, kind: Kind) -> Option<String> {
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    let of_toml = |text: String, path: [&str; 2]| {
        let table: toml::Table = text.parse().ok()?;
        Some(table.get(path[0])?.get(path[1])?.as_str()?.to_owned())
    };
    match kind {
        Kind::Rust => of_toml(read("Cargo.toml")?, ["package", "name"]),
        Kind::Python => of_toml(read("pyproject.toml")?, ["project", "name"]),
        Kind::Node => {
            let json: serde_json::Value = serde_json::from_str(&read("package.json")?).ok()?;
            Some(json.get("name")?.as_str()?.to_owned())
        }
        Kind::Other => None,
    }
}

/// Every setting with its default and what it is for, all of them as comments.
fn settings(project: &Project) -> String {
    let name = project.name.as_deref().unwrap_or("this project");
    // The documentation shows the whole file; it is tested against the settings.
    let known = DOCUMENTATION.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```"));
    let mut lines = vec![
        format!(
            "# Settings of retake for {}. Each line shows a default; remove its # to change it.",
            inert(name)
        ),
        "# `retake config --explain` shows what is in force, and where it comes from.".to_owned(),
        String::new(),
    ];
    for line in known.map_or("", |(known, _)| known).lines() {
        let is_bare = line.is_empty() || line.starts_with('#') || line.starts_with('[');
        lines.push(if is_bare { line.to_owned() } else { format!("# {line}") });
    }
    lines.join("\n") + "\n"
}

fn inert(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
}

/// A budget of every kind, as comments, after one that every run keeps.
fn budgets() -> String {
    let examples: String = check::EXAMPLE
        .lines()
        .map(|line| match line {
            "" => "\n".to_owned(),
            line if line.starts_with('#') => format!("{line}\n"),
            line => format!("# {line}\n"),
        })
        .collect();
    format!(
        "# Budgets of `retake check`. This one holds whatever the program does: events that were lost\n\
         # make every other number too low.\n\
         version = 1\n\n[[budget]]\nname = \"nothing is lost\"\nmetric = \"dropped_events()\"\nmax = 0\n\n\
         # More to choose from; remove the # of what you want to keep.\n\n{}",
        examples.replace("# version = 1\n", "")
    )
}

fn workflow(project: &Project) -> String {
    WORKFLOW.replace("{setup}", project.kind.setup()).replace("{command}", project.kind.command())
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    let written = match path.parent() {
        Some(parent) => std::fs::create_dir_all(parent),
        None => Ok(()),
    };
    written.and_then(|()| std::fs::write(path, content)).map_err(|error| {
        Failure::new(Code::Environment, format!("write {}: {error}", path.display()))
    })
}

/// Keeps the store out of git; gives whether something was added.
fn ignore(folder: &Path) -> Result<bool, Failure> {
    let path: PathBuf = folder.join(".gitignore");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let is_there =
        before.lines().any(|line| matches!(line.trim(), ".retake" | ".retake/" | "/.retake"));
    if is_there || !folder.join(".git").exists() {
        return Ok(false);
    }
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    write(&path, &format!("{before}{gap}/.retake\n"))?;
    Ok(true)
}

/// The page that shows every setting.
const DOCUMENTATION: &str = include_str!("../../docs/configuration.md");
const WORKFLOW: &str = include_str!("../templates/workflow.yml");
/// Longest name of a project that is shown.
const NAME_CHARS_MAX: usize = 80;
