//! Traces laid over each other: where the time goes by path of stages, and what changed there.
//!
//! A box is as wide as the wall time attributed to its path and all below it, so the widths of
//! neighbours add up whatever ran in parallel. Roots stand on top, children below their parent.

use std::collections::{BTreeMap, HashMap};

use maud::{Markup, html};

use super::facts::Facts;
use super::scale::{decimal, percent_of};
use super::text;
use super::units::{self, change, duration, float, length, ns_float, signed_whole};
use crate::flames::SEPARATOR;
use crate::model::{BaselineData, Flame, ReportData};

/// The section; empty where there is no path of two stages to show.
pub(super) fn section(facts: &Facts<'_>) -> Markup {
    if !has_paths(facts.data) {
        return html! {};
    }
    let tree = Tree::new(facts);
    let (boxes, hidden) = tree.boxes();
    html! {
        section id="paths" aria-labelledby="paths-h" {
            h2 id="paths-h" { "By path" (super::tables::sql_link(facts, "paths")) }
            p class="hint" {
                "All traces laid over each other: a box is as wide as the wall time of its stage "
                "and everything below it. What a box leaves open underneath is its own work."
            }
            figure class="flames" {
                (drawing(facts, &tree, &boxes, Colours::Stages))
                @if hidden > 0 {
                    figcaption {
                        (units::plural(hidden, "path")) " too narrow to draw."
                    }
                }
            }
            @if let Some(base) = &facts.data.baseline { (changes(facts, base, &tree, &boxes)) }
            (table(facts, &tree))
        }
    }
}

/// Whether any path is longer than one stage.
pub(super) fn has_paths(data: &ReportData) -> bool {
    data.breakdown.wall_ns > 0 && data.flames.iter().any(|flame| flame.stack.contains(SEPARATOR))
}

/// What a box's colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    /// The stage, as everywhere on the page.
    Stages,
    /// The change against the baseline.
    Changes,
}

fn changes(facts: &Facts<'_>, base: &BaselineData, tree: &Tree<'_>, boxes: &[Placed]) -> Markup {
    let mut gone: Vec<&Node<'_>> =
        tree.nodes.iter().filter(|node| node.wall_ns == 0 && node.base_ns > 0).collect();
    // Of a path that is gone, the part that all its continuations share says enough.
    gone.retain(|node| {
        node.parent.and_then(|at| tree.nodes.get(at)).is_none_or(|up| up.wall_ns > 0)
    });
    gone.sort_by_key(|node| std::cmp::Reverse(node.base_ns));
    html! {
        h3 { "What changed on these paths" }
        p class="hint" {
            "The same boxes, by the change of their time per trace against "
            bdi { (text::label_or_unnamed(&base.run.name)) }
            ". Colours show how much, not how certain: the intervals are in the comparison."
        }
        p class="legend" {
            span { span class="key change up3" {} "much longer" }
            span { span class="key change up1" {} "longer" }
            span { span class="key change eq" {} "within \u{b1}5\u{a0}%" }
            span { span class="key change dn1" {} "shorter" }
            span { span class="key change dn3" {} "much shorter" }
        }
        figure class="flames" { (drawing(facts, tree, boxes, Colours::Changes)) }
        @if !gone.is_empty() {
            p class="hint" {
                "Only in the baseline: "
                @for (at, node) in gone.iter().take(GONE_MAX).enumerate() {
                    @if at > 0 { ", " }
                    bdi { (path_text(node.stack)) }
                    " (" (duration(tree.base_per_trace(node.base_ns))) " per trace)"
                }
                @if gone.len() > GONE_MAX {
                    ", and " (units::plural((gone.len() - GONE_MAX) as u64, "more path"))
                }
                "."
            }
        }
    }
}

fn drawing(facts: &Facts<'_>, tree: &Tree<'_>, boxes: &[Placed], colours: Colours) -> Markup {
    let deepest = boxes.iter().map(|placed| placed.level).max().unwrap_or(0);
    let height = ROW_HEIGHT * length(deepest + 1);
    let title = match colours {
        Colours::Stages => "Wall time by path of stages",
        Colours::Changes => "Change of wall time by path of stages",
    };
    html! {
        svg class="flame" width="100%" height=(decimal(height)) role="img" aria-label=(title) {
            title { (title) }
            desc { "Every path is in the table below." }
            @for placed in boxes {
                @if let Some(node) = tree.nodes.get(placed.node) {
                    (one(facts, tree, node, placed, colours))
                }
            }
        }
    }
}

fn one(
    facts: &Facts<'_>,
    tree: &Tree<'_>,
    node: &Node<'_>,
    placed: &Placed,
    colours: Colours,
) -> Markup {
    let change = tree.change(node);
    let class = match colours {
        Colours::Stages => format!("{} pale", facts.palette.class(node.name)),
        Colours::Changes => format!("change {}", change_class(change)),
    };
    let room = placed.width * LABEL_CHARS_ACROSS;
    html! {
        svg class="box" x=(percent_of(placed.x)) y=(decimal(ROW_HEIGHT * length(placed.level)))
            width=(percent_of(placed.width)) height=(decimal(ROW_HEIGHT)) {
            title { (tooltip(tree, node)) }
            rect class=(class) width="100%" height=(decimal(ROW_HEIGHT - 1.0)) {}
            @if colours == Colours::Stages {
                rect class=(facts.palette.class(node.name)) width="3"
                    height=(decimal(ROW_HEIGHT - 1.0)) {}
            }
            @if room >= LABEL_CHARS_MIN {
                text x="7" y="13" {
                    (text::named(node.name, NAME_CHARS_MAX))
                    @if colours == Colours::Changes && change.is_none_or(|by| by.abs() >= SMALL) {
                        tspan class="tick" { " " (change_text(change)) }
                    }
                }
            }
        }
    }
}

fn tooltip(tree: &Tree<'_>, node: &Node<'_>) -> String {
    let share = ns_float(node.wall_ns) / ns_float(tree.whole_ns.max(1));
    let mut said = format!(
        "{}\n{} per trace, {} of the wall time; {}, {} own work",
        path_text(node.stack),
        duration(tree.per_trace(node.wall_ns)),
        units::percent(share),
        units::plural(node.spans, "span"),
        duration(tree.per_trace(node.own_ns)),
    );
    if tree.base_traces > 0 {
        said.push_str(&format!(
            "\nbaseline {} per trace, {}",
            duration(tree.base_per_trace(node.base_ns)),
            change_text(tree.change(node))
        ));
    }
    said
}

/// The paths with most work of their own, for those who read rather than look.
fn table(facts: &Facts<'_>, tree: &Tree<'_>) -> Markup {
    let mut nodes: Vec<&Node<'_>> = tree.nodes.iter().filter(|node| node.own_ns > 0).collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(node.own_ns));
    let has_base = tree.base_traces > 0;
    html! {
        details class="fold" {
            summary { "The paths with most work of their own" }
            div class="scroll" role="region" aria-label="Paths" tabindex="0" {
                table class="plain" {
                    thead { tr {
                        th scope="col" { "Path" }
                        th scope="col" class="num" { "Own work per trace" }
                        th scope="col" class="num" { "Share" }
                        th scope="col" class="num" { "Spans" }
                        @if has_base {
                            th scope="col" class="num" { "With all below" }
                            th scope="col" class="num" { "Baseline" }
                            th scope="col" class="num" { "Change" }
                        }
                    } }
                    tbody {
                        @for node in nodes.iter().take(TABLE_ROWS_MAX) {
                            tr {
                                th scope="row" {
                                    span class={ "sw " (facts.palette.class(node.name)) } {}
                                    bdi { (path_text(node.stack)) }
                                }
                                td class="num" { (duration(tree.per_trace(node.own_ns))) }
                                td class="num" {
                                    (units::percent(
                                        ns_float(node.own_ns) / ns_float(tree.whole_ns.max(1))
                                    ))
                                }
                                td class="num" { (units::count(node.spans)) }
                                @if has_base {
                                    td class="num" { (duration(tree.per_trace(node.wall_ns))) }
                                    td class="num" {
                                        (duration(tree.base_per_trace(node.base_ns)))
                                    }
                                    td class="num" { (change_text(tree.change(node))) }
                                }
                            }
                        }
                    }
                }
            }
            @if nodes.len() > TABLE_ROWS_MAX {
                p class="hint" {
                    (units::plural((nodes.len() - TABLE_ROWS_MAX) as u64, "more path"))
                    " not shown."
                }
            }
        }
    }
}

/// A path of stages and what hangs below it.
#[derive(Debug)]
struct Node<'a> {
    stack: &'a str,
    name: &'a str,
    depth: usize,
    parent: Option<usize>,
    children: Vec<usize>,
    spans: u64,
    /// Attributed wall time of its own, ns.
    own_ns: i64,
    /// The same with everything below.
    wall_ns: i64,
    /// The same in the baseline.
    base_ns: i64,
}

#[derive(Debug)]
struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    roots: Vec<usize>,
    /// Wall time of all traces, ns.
    whole_ns: i64,
    traces: u64,
    /// 0 without a baseline.
    base_traces: u64,
}

/// Where a node is drawn; shares of the width.
#[derive(Debug)]
struct Placed {
    node: usize,
    level: usize,
    x: f64,
    width: f64,
}

impl<'a> Tree<'a> {
    fn new(facts: &Facts<'a>) -> Self {
        let data = facts.data;
        let base = data.baseline.as_ref();
        let mut of_path: BTreeMap<&str, [Option<&Flame>; 2]> = BTreeMap::new();
        for flame in &data.flames {
            of_path.entry(&flame.stack).or_default()[0] = Some(flame);
        }
        for flame in base.iter().flat_map(|base| &base.flames) {
            of_path.entry(&flame.stack).or_default()[1] = Some(flame);
        }
        let mut nodes: Vec<Node<'_>> = Vec::with_capacity(of_path.len());
        let mut places: HashMap<&str, usize> = HashMap::new();
        // By name a path comes after the one it extends.
        for (&stack, [flame, base]) in &of_path {
            let (above, name) = match stack.rsplit_once(SEPARATOR) {
                Some((above, name)) => (places.get(above).copied(), name),
                None => (None, stack),
            };
            let own = flame.map_or(0, |flame| flame.wall_ns.max(0));
            places.insert(stack, nodes.len());
            nodes.push(Node {
                stack,
                name,
                depth: above.and_then(|at| nodes.get(at)).map_or(0, |up| up.depth + 1),
                parent: above,
                children: Vec::new(),
                spans: flame.map_or(0, |flame| flame.spans),
                own_ns: own,
                wall_ns: own,
                base_ns: base.map_or(0, |flame| flame.wall_ns.max(0)),
            });
        }
        let mut deepest_first: Vec<usize> = (0..nodes.len()).collect();
        deepest_first.sort_by_key(|&at| std::cmp::Reverse(nodes.get(at).map(|node| node.depth)));
        for at in deepest_first {
            let Some(node) = nodes.get(at) else { continue };
            let (wall, base) = (node.wall_ns, node.base_ns);
            if let Some(up) = node.parent.and_then(|parent| nodes.get_mut(parent)) {
                up.wall_ns = up.wall_ns.saturating_add(wall);
                up.base_ns = up.base_ns.saturating_add(base);
                up.children.push(at);
            }
        }
        let by_width = |order: &mut Vec<usize>, walls: &[i64]| {
            order.sort_by_key(|&at| {
                std::cmp::Reverse((walls.get(at).copied(), std::cmp::Reverse(at)))
            });
        };
        let walls: Vec<i64> = nodes.iter().map(|node| node.wall_ns).collect();
        nodes.iter_mut().for_each(|node| by_width(&mut node.children, &walls));
        let is_root = |at: &usize| nodes.get(*at).is_some_and(|node| node.parent.is_none());
        let mut roots: Vec<usize> = (0..nodes.len()).filter(is_root).collect();
        by_width(&mut roots, &walls);
        let drawn =
            roots.iter().filter_map(|&at| walls.get(at)).fold(0_i64, |a, b| a.saturating_add(*b));
        Self {
            nodes,
            roots,
            // The rest is time at which no span was active.
            whole_ns: data.breakdown.wall_ns.max(drawn),
            traces: data.breakdown.traces,
            base_traces: base.map_or(0, |base| base.breakdown.traces),
        }
    }

    /// The boxes wide enough to be seen, and how many are not.
    fn boxes(&self) -> (Vec<Placed>, u64) {
        let whole = ns_float(self.whole_ns.max(1));
        let mut boxes = Vec::new();
        let mut hidden = 0;
        // Level by level, so that what is cut for size are the deepest and narrowest.
        let mut level: Vec<(usize, f64)> = Vec::new();
        let mut x = 0.0;
        for &root in &self.roots {
            level.push((root, x));
            x += self.nodes.get(root).map_or(0.0, |node| ns_float(node.wall_ns) / whole);
        }
        let mut depth = 0;
        while !level.is_empty() {
            let mut next = Vec::new();
            for (at, x) in level {
                let Some(node) = self.nodes.get(at) else { continue };
                let width = ns_float(node.wall_ns) / whole;
                if node.wall_ns == 0 {
                    continue;
                }
                if width < WIDTH_MIN || depth >= DEPTH_MAX || boxes.len() >= BOXES_MAX {
                    hidden += 1;
                    continue;
                }
                boxes.push(Placed { node: at, level: depth, x, width });
                let mut x = x;
                for &child in &node.children {
                    next.push((child, x));
                    x += self.nodes.get(child).map_or(0.0, |node| ns_float(node.wall_ns) / whole);
                }
            }
            level = next;
            depth += 1;
        }
        (boxes, hidden)
    }

    fn per_trace(&self, ns: i64) -> i64 {
        signed_whole(ns_float(ns) / float(self.traces.max(1)))
    }

    fn base_per_trace(&self, ns: i64) -> i64 {
        signed_whole(ns_float(ns) / float(self.base_traces.max(1)))
    }

    /// Relative change of the time per trace; `None` for what the baseline has not.
    fn change(&self, node: &Node<'_>) -> Option<f64> {
        let before = ns_float(node.base_ns) / float(self.base_traces.max(1));
        let after = ns_float(node.wall_ns) / float(self.traces.max(1));
        (before > 0.0).then(|| after / before - 1.0)
    }
}

/// A path in words.
fn path_text(stack: &str) -> String {
    let stages: Vec<String> =
        stack.split(SEPARATOR).map(|stage| text::named(stage, NAME_CHARS_MAX)).collect();
    text::one_line(&stages.join(" \u{203a} "), PATH_CHARS_MAX)
}

fn change_text(by: Option<f64>) -> String {
    match by {
        Some(by) if by >= SMALL => format!("\u{25b2}\u{a0}{}", change(by)),
        Some(by) if by <= -SMALL => format!("\u{25bc}\u{a0}{}", change(by)),
        Some(by) => change(by),
        None => "new".to_owned(),
    }
}

fn change_class(by: Option<f64>) -> &'static str {
    match by {
        None => "up3",
        Some(by) if by.abs() < SMALL => "eq",
        Some(by) if by >= 0.5 => "up3",
        Some(by) if by >= 0.2 => "up2",
        Some(by) if by > 0.0 => "up1",
        // Half is to a half what twice is to one and a half: shorter by a third.
        Some(by) if by <= -1.0 / 3.0 => "dn3",
        Some(by) if by <= -1.0 / 6.0 => "dn2",
        Some(_) => "dn1",
    }
}

/// Changes below this are too small to matter.
const SMALL: f64 = 0.05;
/// Height of a row of boxes, pixels.
const ROW_HEIGHT: f64 = 19.0;
/// Narrowest box, as a share of the width: two pixels of a wide page.
const WIDTH_MIN: f64 = 0.0018;
/// Rows drawn; deeper traces are recursion.
const DEPTH_MAX: usize = 30;
/// Boxes drawn, for the size of the page.
const BOXES_MAX: usize = 320;
/// Characters of a label over the whole width of a page.
const LABEL_CHARS_ACROSS: f64 = 150.0;
/// Fewer characters than these say nothing.
const LABEL_CHARS_MIN: f64 = 4.0;
/// Longest name in a box, characters.
const NAME_CHARS_MAX: usize = 48;
/// Longest path in words, characters.
const PATH_CHARS_MAX: usize = 240;
/// Paths in the table.
const TABLE_ROWS_MAX: usize = 25;
/// Paths named that only the baseline has.
const GONE_MAX: usize = 5;
