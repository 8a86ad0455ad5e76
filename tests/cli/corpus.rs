//! Documents and questions the tests write themselves.

use std::path::Path;

/// Sentences that stand in exactly one document each.
pub(crate) const KEEPER: &str = "The keeper of Skerryvore was called Margaret Dunbar";

/// A folder with Markdown, HTML and plain text about lighthouses: prose enough for the questions
/// of a demo.
pub(crate) fn write_lighthouses(folder: &Path) {
    std::fs::create_dir_all(folder.join("old")).expect("folders");
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).expect("write a document");
    };
    write(
        "skerryvore.md",
        format!(
            "# Skerryvore\n\n{KEEPER}. Granite blocks from Mull were carried across the sound by \
             wooden barges.\n\n## The lamp\n\nThe lens weighed nearly four tons and floated on a \
             bath of mercury.\n"
        ),
    );
    write(
        "fastnet.html",
        "<!doctype html><html><head><title>Fastnet</title><script>alert('never shown')</script>\
         </head><body><h1>Fastnet</h1><p>The Fastnet tower stands on a clay slate rock south of \
         Cape Clear.</p><p>Cornish granite was shipped in dovetailed courses and assembled by \
         local masons.</p></body></html>"
            .to_owned(),
    );
    write(
        "old/eddystone.txt",
        "Winstanley perished when the great storm destroyed his wooden \
         Eddystone tower.\nSmeaton later used hydraulic lime that hardened beneath the waves.\n"
            .to_owned(),
    );
    for (index, name) in PLACES.iter().enumerate() {
        let (colour, animal) = (COLOURS[index % COLOURS.len()], ANIMALS[index % ANIMALS.len()]);
        write(
            &format!("{name}.md"),
            format!(
                "# {name}\n\nThe lantern of {name} flashes {colour} every {} seconds during foggy \
                 nights. Fishermen around {name} report that a tame {animal} guards the harbour \
                 entrance. Supplies for {name} arrive by steamer whenever the eastern channel \
                 stays calm.\n",
                index + 3
            ),
        );
    }
}

/// A folder of `count` Markdown files, long enough that ingesting them takes a moment.
pub(crate) fn write_many(folder: &Path, count: usize) {
    std::fs::create_dir_all(folder).expect("folders");
    for document in 0..count {
        let mut text = format!("# Log book {document}\n\n");
        for day in 0..40 {
            text.push_str(&format!(
                "On day {day} the watch of log book {document} saw vessel {} pass the outer buoy \
                 under {} sails and wrote it down. ",
                document * 31 + day,
                COLOURS[(document + day) % COLOURS.len()]
            ));
        }
        std::fs::write(folder.join(format!("log-{document:05}.md")), text).expect("write");
    }
}

/// JSON lines with one question for each of `count` log books.
pub(crate) fn questions(count: usize) -> String {
    (0..count)
        .map(|n| {
            format!("{{\"id\":\"q{n}\",\"question\":\"Which vessel did log book {n} see?\"}}\n")
        })
        .collect()
}

const PLACES: [&str; 8] =
    ["Ardnamurchan", "Bishop", "Corsewall", "Dungeness", "Esha", "Flannan", "Girdle", "Hyskeir"];
const COLOURS: [&str; 4] = ["crimson", "emerald", "ivory", "amber"];
const ANIMALS: [&str; 4] = ["seal", "puffin", "otter", "gannet"];
