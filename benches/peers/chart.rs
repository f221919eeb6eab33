//! The chart: what each gateway costs, as a part of what HAProxy does.
//!
//! Written by hand: a bar chart is some rectangles, and its text stays text. It carries its own background, which follows the
//! reader's colour scheme where that is known, so that it is legible on any page. Bars are told apart by their labels as well.

use std::fmt::Write as _;

use crate::report::{BASE, Report, Row};

const WIDTH: f64 = 820.0;
/// Where bars begin, and where those end that are as long as the scale.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 700.0;
/// The scale's end, in parts of what HAProxy takes. Longer bars are cut there, and their figure tells.
const SCALE: f64 = 2.0;
const TOP: f64 = 92.0;
const BAR: f64 = 13.0;
const GAP: f64 = 14.0;

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.page { fill: #ffffff } .soft { fill: #59636e } .title { font-size: 17px; font-weight: 600 }
.line { stroke: #59636e; stroke-dasharray: 3 3 }
.value { font-size: 11px; paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
.strait { fill: #0969da } .haproxy-splice { fill: #bf8700 } .nginx { fill: #6e7781 } .envoy { fill: #8250df }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .page { fill: #0d1117 } .soft { fill: #9198a1 } .line { stroke: #9198a1 } .value { stroke: #0d1117 }
  .strait { fill: #4493f8 } .haproxy-splice { fill: #d29922 } .nginx { fill: #848d97 } .envoy { fill: #ab7df8 }
}
";

/// The whole picture, as SVG.
pub(crate) fn draw(report: &Report) -> String {
    let rows: Vec<_> = report.rows.iter().filter(|row| row.metric.is_cost()).collect();
    let mut bars = String::new();
    let mut y = TOP;
    for row in &rows {
        y = draw_row(&mut bars, row, y);
    }
    let height = y + 54.0;
    let (base_x, base_end) = (x(1.0), y - GAP / 2.0);
    let machine = &report.machine;
    let mut versions: Vec<_> =
        report.versions.iter().map(|(_, version)| version.as_str()).collect();
    versions.dedup();
    let description = escaped(&describe(&rows));
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="title desc">
<title id="title">What a gateway costs, where HAProxy is 1</title>
<desc id="desc">{description}</desc>
<style>
{STYLE}</style>
<rect class="page" width="100%" height="100%" rx="8"/>
<text class="title" x="20" y="32">What a gateway costs, where HAProxy is 1</text>
<text class="soft" x="20" y="54">Less is better. In the same run, medians.</text>
{legend}<line class="line" x1="{base_x}" x2="{base_x}" y1="{line_top}" y2="{base_end}"/>
<text class="soft" x="{base_x}" y="{base_label}" text-anchor="middle">HAProxy = 1</text>
{bars}<text class="soft value" x="20" y="{about}">{processor}, {cores} cores, {kernel}, {date}</text>
<text class="soft value" x="20" y="{about_2}">{versions}</text>
</svg>
"#,
        legend = legend(report),
        line_top = TOP - 6.0,
        base_label = TOP - 12.0,
        about = y + 22.0,
        about_2 = y + 38.0,
        processor = escaped(&machine.processor),
        cores = machine.cores,
        kernel = escaped(&machine.kernel),
        date = machine.date,
        versions = escaped(&versions.join(", ")),
    )
}

fn x(ratio: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * ratio.clamp(0.0, SCALE) / SCALE
}

/// Those that have bars: Strait first.
fn drawn(row: &Row) -> Vec<(&'static str, f64)> {
    let with_ratio = |target: &'static str, ratio: Option<f64>| ratio.map(|ratio| (target, ratio));
    let others = row.figures.iter().filter(|figure| figure.target != BASE);
    let mut drawn: Vec<_> =
        others.filter_map(|figure| with_ratio(figure.target, figure.ratio)).collect();
    drawn.sort_by_key(|(target, _)| *target != "strait");
    drawn
}

/// The metric without its unit: a ratio has none.
fn what(row: &Row) -> &'static str {
    row.metric.title().split(',').next().unwrap_or_default()
}

/// Where the next row begins.
fn draw_row(to: &mut String, row: &Row, top: f64) -> f64 {
    let bars = drawn(row);
    let height = bars.iter().map(|_| BAR).sum::<f64>().max(BAR);
    let title_y = top + height / 2.0;
    let (work, metric) = (escaped(&row.work), what(row));
    let mut lines = format!(
        "<text x=\"20\" y=\"{:.1}\">{work}</text>\n<text class=\"soft value\" x=\"20\" y=\"{:.1}\">{metric}</text>\n",
        title_y - 2.0,
        title_y + 12.0
    );
    for (place, (target, ratio)) in (0_u8..).zip(bars) {
        let y = top + BAR * f64::from(place);
        let (end, cut) = (x(ratio), if ratio > SCALE { " ›" } else { "" });
        writeln!(
            lines,
            "<rect class=\"{target}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{ratio:.2}{cut} <tspan class=\"soft\">{target}</tspan></text>",
            y + 1.0,
            (end - LEFT).max(1.0),
            BAR - 2.0,
            end + 5.0,
            y + BAR - 3.0
        )
        .expect("a string takes all");
    }
    to.push_str(&lines);
    top + height + GAP
}

fn legend(report: &Report) -> String {
    let mut text = String::new();
    let shown = report.versions.iter().map(|(label, _)| *label).filter(|label| *label != BASE);
    for (place, label) in (0_u8..).zip(shown.rev()) {
        let x = 20.0 + 80.0 * f64::from(place);
        writeln!(
            text,
            "<rect class=\"{label}\" x=\"{x}\" y=\"66\" width=\"10\" height=\"10\" rx=\"2\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"75\">{label}</text>",
            x + 15.0
        )
        .expect("a string takes all");
    }
    text
}

/// The picture in words, for who does not see it.
fn describe(rows: &[&Row]) -> String {
    let describe = |row: &&Row| {
        let bars = drawn(row);
        let bars: Vec<_> =
            bars.iter().map(|(target, ratio)| format!("{target} {ratio:.2}")).collect();
        format!("{}, {}: {}.", row.work, what(row), bars.join(", "))
    };
    let rows: Vec<_> = rows.iter().map(describe).collect();
    format!("A bar chart; HAProxy is 1 and less is better. {}", rows.join(" "))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
