//! The table format: boxes, headings centred in capitals, cells to the right.

use super::Answer;
use super::rows::{self, Rows};

/// The table of an answer that has one.
pub fn render(answer: Answer<'_>) -> Option<Vec<u8>> {
    let rows = match answer {
        Answer::MemberList(response) => rows::members(response),
        Answer::Health(list) => rows::health(list),
        Answer::Status(list) => rows::status(list),
        Answer::HashKv(list) => rows::hash_kv(list),
        _ => return None,
    };
    Some(draw(&rows).into_bytes())
}

/// A box of rows under headings.
pub fn draw(table: &Rows) -> String {
    let headings: Vec<String> = table
        .headings
        .iter()
        .map(|heading| heading.to_uppercase().replace('_', " "))
        .collect();
    let width_of = |column: usize| {
        let cells = table.rows.iter().map(|row| &row[column]);
        let widths = cells
            .chain([&headings[column]])
            .map(|cell| cell.chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width_of).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let bars: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", bars.join(middle))
    };
    let line = |cells: Vec<String>| format!("│ {} │\n", cells.join(" │ "));

    let mut text = rule("┌", "┬", "┐");
    let cells = headings.iter().zip(&widths);
    text += &line(
        cells
            .map(|(cell, width)| format!("{cell:^width$}"))
            .collect(),
    );
    if !table.rows.is_empty() {
        text += &rule("├", "┼", "┤");
    }
    for row in &table.rows {
        let cells = row.iter().zip(&widths);
        text += &line(
            cells
                .map(|(cell, width)| format!("{cell:>width$}"))
                .collect(),
        );
    }
    text + &rule("└", "┴", "┘")
}
