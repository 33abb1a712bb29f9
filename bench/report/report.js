// Sorting by a click on a heading; without scripts the tables stay in the report's order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const first = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("span"); // a real button would be missing where a printed page repeats headings
    button.setAttribute("role", "button");
    button.tabIndex = 0;
    button.append(...head.childNodes);
    head.append(button);
    const key = (row) => row.cells[column].dataset.v;
    const numeric = first.every((row) => !Number.isNaN(Number(key(row)))); // Number("") is 0
    const order = numeric ? ["descending", "ascending", null] : ["ascending", "descending", null];
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      button.click();
    });
    button.addEventListener("click", () => {
      const next = order[(order.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // what is not known stands last either way
        return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y));
      };
      body.append(...(next ? [...first].sort(compare) : first));
    });
  });
}

// What is folded on the screen is printed, and opens where a link leads into it.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
const reveal = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  const part = target && (target.closest("details") || target.querySelector(":scope > details"));
  if (part && !part.open) {
    part.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", reveal);
reveal();
