//! The binary `quoratectl`.

fn main() {
    std::process::exit(quoratectl::run(std::env::args_os()));
}
