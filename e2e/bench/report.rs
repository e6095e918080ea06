//! The table, and the file for programs.

use countersign_e2e::workspace;
use serde::Serialize;

/// All that was measured.
#[derive(Default)]
pub struct Report(Vec<Row>);

/// One line.
#[derive(Serialize)]
pub struct Row {
    name: String,
    value: f64,
    unit: String,
    /// What the design asks for, in words; empty for what is only told.
    target: String,
    met: Option<bool>,
}

impl Row {
    /// A value that must be so large.
    pub fn at_least(name: &str, value: f64, unit: &str, target: f64) -> Self {
        Self::new(name, value, unit, format!("at least {target}"), Some(value >= target))
    }

    /// A value that must not be larger.
    pub fn at_most(name: &str, value: f64, unit: &str, target: f64) -> Self {
        Self::new(name, value, unit, format!("at most {target}"), Some(value <= target))
    }

    /// A value that must be smaller.
    pub fn below(name: &str, value: f64, unit: &str, target: f64) -> Self {
        Self::new(name, value, unit, format!("under {target}"), Some(value < target))
    }

    fn new(name: &str, value: f64, unit: &str, target: String, met: Option<bool>) -> Self {
        Self { name: name.into(), value, unit: unit.into(), target, met }
    }
}

impl Report {
    /// Adds a line.
    pub fn row(&mut self, row: Row) {
        self.0.push(row);
    }

    /// Adds a value that has no target.
    pub fn note(&mut self, name: &str, value: f64, unit: &str) {
        self.0.push(Row::new(name, value, unit, String::new(), None));
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{:<44} {:>10} {:<13} {:<13} met", "what", "measured", "", "target");
        for row in &self.0 {
            let met = row.met.map_or("", |met| if met { "yes" } else { "NO" });
            println!(
                "{:<44} {:>10.2} {:<13} {:<13} {met}",
                row.name, row.value, row.unit, row.target
            );
        }
    }

    /// Writes target/bench/results.json.
    pub fn save(&self) {
        let folder = workspace::target().join("bench");
        let text = serde_json::to_string_pretty(&self.0).expect("numbers and texts are JSON");
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("results.json"), text + "\n"))
            .unwrap_or_else(|error| panic!("cannot write to {}: {error}", folder.display()));
    }
}
