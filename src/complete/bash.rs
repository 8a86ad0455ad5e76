//! Bash, with a script of our own.
//!
//! The one of `clap_complete` does not join the words that bash splits at `:` and `=`, which
//! selectors hold (`baseline:main`, `label:suite=ci`), and writes candidates unquoted: a run that
//! a stranger named `$(...)` would be a command as soon as the line is run.

use std::ffi::OsString;
use std::io::{Error, Write};
use std::path::Path;

use clap::Command;
use clap_complete::env::EnvCompleter;

/// The adapter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        var: &str,
        _name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let script = SCRIPT
            .replace("VARIABLE", var)
            .replace("COMPLETER", &quoted(completer))
            .replace("PROGRAM", &quoted(bin));
        buf.write_all(script.as_bytes())
    }

    fn write_complete(
        &self,
        cmd: &mut Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        clap_complete::env::Bash.write_complete(cmd, args, current_dir, buf)
    }
}

/// A word of bash that stands for itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Works from bash 3.2 on, which macOS has.
const SCRIPT: &str = r#"_retake_complete() {
    # Bash splits words at : and =, which selectors of runs hold: what has no space before it
    # belongs to the word before.
    local words=() count=0 i word gap rest="${COMP_LINE:0:COMP_POINT}"
    for ((i = 0; i <= COMP_CWORD; i++)); do
        gap=${rest%%[![:space:]]*}
        rest=${rest#"$gap"}
        word=${COMP_WORDS[i]}
        ((i == COMP_CWORD)) && word=$rest
        rest=${rest#"$word"}
        if [[ -z $gap ]] && ((count > 0)); then
            words[count - 1]+=$word
        else
            words[count]=$word
            ((++count))
        fi
    done
    local typed=${words[count - 1]} is_quoted=
    case $typed in
    [\'\"]*) is_quoted=1 typed=${typed:1} ;;
    *) typed=${typed//\\/} ;;
    esac
    words[count - 1]=$typed

    # Bash replaces only what follows the last break.
    local breaks=${COMP_WORDBREAKS//[^:=]/} known=
    if [[ -n $breaks && -z $is_quoted && $typed == *["$breaks"]* ]]; then
        known=${typed%"${typed##*["$breaks"]}"}
    fi
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate || [[ -n $candidate ]]; do
        candidate=${candidate#"$known"}
        # Names of runs may be made by strangers: none of them becomes a command.
        if [[ -z $is_quoted ]]; then
            printf -v candidate %q "$candidate"
        elif [[ $candidate == *[\'\"\`\$\\\!]* ]]; then
            continue
        fi
        COMPREPLY+=("$candidate")
    done < <(
        _CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((count - 1)) _CLAP_COMPLETE_SPACE=false \
            VARIABLE=bash COMPLETER -- "${words[@]}" 2>/dev/null
    )
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *[=/:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -o nosort -F _retake_complete PROGRAM 2>/dev/null ||
    complete -o bashdefault -F _retake_complete PROGRAM
"#;
