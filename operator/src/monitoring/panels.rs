//! Panels of Grafana, two in a row.

use serde_json::{Value, json};

/// A panel of lines.
pub struct Panel {
    pub title: &'static str,
    /// Grafana's name of the unit: `s`, `bytes`, `ops`, `short`.
    pub unit: &'static str,
    /// Expressions with their legends.
    pub lines: Vec<(String, &'static str)>,
}

/// A panel of one expression.
pub fn panel(title: &'static str, unit: &'static str, expr: String, legend: &'static str) -> Panel {
    Panel {
        title,
        unit,
        lines: vec![(expr, legend)],
    }
}

/// A dashboard of panels.
pub fn dashboard(uid: &str, title: &str, variables: &[Value], panels: Vec<Panel>) -> Value {
    let source = json!({
        "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source",
    });
    let variables: Vec<Value> = std::iter::once(source)
        .chain(variables.iter().cloned())
        .collect();
    let panels = panels.into_iter().enumerate();
    let panels: Vec<Value> = panels.map(|(at, panel)| drawn(at, &panel)).collect();
    json!({
        "uid": uid,
        "title": title,
        "tags": ["quorate"],
        "schemaVersion": 39,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "timezone": "",
        "templating": { "list": variables },
        "panels": panels,
    })
}

fn drawn(at: usize, panel: &Panel) -> Value {
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let lines = panel.lines.iter().zip('A'..='Z');
    let targets: Vec<Value> = lines
        .map(|((expr, legend), id)| {
            json!({
                "datasource": source,
                "expr": expr,
                "legendFormat": legend,
                "refId": id.to_string(),
            })
        })
        .collect();
    json!({
        "id": at + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": { "h": 8, "w": 12, "x": (at % 2) * 12, "y": (at / 2) * 8 },
        "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
        "options": {
            "legend": { "showLegend": true, "displayMode": "list", "placement": "bottom" },
        },
        "targets": targets,
    })
}
