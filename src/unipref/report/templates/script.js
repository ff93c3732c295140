"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  for (const table of all("table[data-sortable]")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const key = (row) => row.cells[column].dataset.sort;
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x === "" || y === "") return (x === "") - (y === "");
          const order = head.dataset.type === "text" ? x.localeCompare(y) : Number(x) - Number(y);
          return up ? order : -order;
        });
        body.append(...rows);
      });
    });
  }

  for (const list of all("[role=tablist]")) {
    const tabs = all("[role=tab]", list);
    const select = (tab) => {
      for (const other of tabs) {
        const on = other === tab;
        other.setAttribute("aria-selected", String(on));
        other.tabIndex = on ? 0 : -1;
        document.getElementById(other.getAttribute("aria-controls")).hidden = !on;
      }
    };
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => select(tab));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const next = tabs[(i + step + tabs.length) % tabs.length];
        next.focus();
        select(next);
      });
    });
  }

  for (const box of all("input[data-toggle-run]")) {
    const apply = () => {
      for (const line of all(".line")) {
        if (line.dataset.run === box.dataset.toggleRun) line.classList.toggle("off", !box.checked);
      }
    };
    box.addEventListener("change", apply);
    apply();
  }

  const browser = document.getElementById("browser");
  if (browser) {
    const gate = document.getElementById("gate");
    const cards = all("article", browser);
    const count = document.getElementById("sample-count");
    const [back, on] = [document.getElementById("sample-back"), document.getElementById("sample-next")];
    let at = 0;
    const show = (index) => {
      at = Math.max(0, Math.min(cards.length - 1, index));
      cards.forEach((card, i) => { card.hidden = i !== at; });
      const prompt = cards[at].querySelector(".prompt");
      prompt.scrollTop = prompt.scrollHeight; // the question that is answered is at its end
      count.textContent = `${at + 1} of ${cards.length}`;
      back.disabled = at === 0;
      on.disabled = at === cards.length - 1;
    };
    document.getElementById("sample-show").addEventListener("click", () => {
      gate.hidden = true;
      browser.hidden = false;
      show(at);
      on.focus();
    });
    document.getElementById("sample-hide").addEventListener("click", () => {
      gate.hidden = false;
      browser.hidden = true;
      document.getElementById("sample-show").focus();
    });
    back.addEventListener("click", () => show(at - 1));
    on.addEventListener("click", () => show(at + 1));
    browser.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); show(at + step); }
    });
  }
})();
