//! `retake config`, `retake completions`, `retake man`.

use std::collections::BTreeMap;

use clap::CommandFactory;
use retake_recorder::remote::redact;
use serde_json::{Value, json};

use crate::cli::{Cli, Completions, Config, Format, Man};
use crate::complete;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, row, table, unsupported};

pub(crate) fn config(context: &Context, args: &Config) -> Result<Code, Failure> {
    let settings = &context.config.settings;
    let mut flat: BTreeMap<String, Value> = BTreeMap::new();
    flat.insert("store".to_owned(), json!(settings.store));
    if let Ok(Value::Object(record)) = serde_json::to_value(&settings.record) {
        flat.extend(record.into_iter().map(|(name, value)| (format!("record.{name}"), value)));
    }
    if let Some(url) = &settings.record.upload {
        flat.insert("record.upload".to_owned(), json!(redact(url)));
    }
    let rag = settings.rag.recordable();
    flat.extend(rag.into_iter().map(|(name, value)| (format!("rag.{name}"), value)));
    match context.format_or(Format::Table) {
        Format::Json => {
            let settings: BTreeMap<_, _> = flat
                .into_iter()
                .map(|(name, value)| {
                    let origin = context.config.origin(&name);
                    (name, json!({"value": value, "origin": origin}))
                })
                .collect();
            print_json(&json!({"schema_version": 1, "settings": settings}))?;
        }
        format @ (Format::Table | Format::Markdown) => {
            let header: &[&str] =
                if args.explain { &["setting", "value", "from"] } else { &["setting", "value"] };
            let mut shown = table(format, header, header.len());
            for (name, value) in &flat {
                let mut cells = vec![name.clone(), value.to_string()];
                if args.explain {
                    cells.push(context.config.origin(name));
                }
                row(&mut shown, cells);
            }
            print(&shown.to_string())?;
            match &context.config.file {
                Some(file) => context.say(&format!("file: {}", file.display())),
                None => context.say("no retake.toml here or above"),
            }
        }
        other => return Err(unsupported(other, "the configuration")),
    }
    Ok(Code::Ok)
}

pub(crate) fn completions(args: &Completions) -> Result<Code, Failure> {
    let script = complete::script(&args.shell.to_string())
        .map_err(|error| Failure::new(Code::Internal, format!("write completions: {error}")))?;
    print(&String::from_utf8_lossy(&script))?;
    Ok(Code::Ok)
}

pub(crate) fn man(args: &Man) -> Result<Code, Failure> {
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&args.folder)?;
        clap_mangen::generate_to(Cli::command(), &args.folder)
    };
    write().map_err(|error| {
        let message = format!("write manual pages to {}: {error}", args.folder.display());
        Failure::new(Code::Environment, message)
    })?;
    print(&args.folder.display().to_string())?;
    Ok(Code::Ok)
}
