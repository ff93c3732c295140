"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const list = document.getElementById("sample-list");
  const gate = document.getElementById("sample-gate");
  const filter = document.getElementById("sample-filter");
  const status = document.getElementById("sample-status");
  const cards = all("article", list);
  const plain = (text) => text.normalize("NFKC").toLocaleLowerCase();
  const said = (card) => all(".prompt, .text p", card).map((part) => part.textContent).join("\n");
  const texts = cards.map((card) => plain(said(card)));

  const apply = () => {
    const words = plain(filter.value).split(/\s+/).filter(Boolean);
    let n = 0;
    cards.forEach((card, i) => {
      card.hidden = !words.every((word) => texts[i].includes(word));
      n += !card.hidden;
    });
    status.textContent = `${n} of ${cards.length} shown`;
  };
  filter.addEventListener("input", apply);
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { filter.value = ""; apply(); }
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, textarea, select");
    if (event.key !== "/" || typing || list.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    filter.focus();
  });

  for (const box of all("input[data-toggle-model]")) {
    const show = () => {
      for (const text of all(".text[data-model]", list)) {
        if (text.dataset.model === box.dataset.toggleModel) text.hidden = !box.checked;
      }
    };
    box.addEventListener("change", show);
    show(); // a browser may bring boxes back as they were left
  }

  document.getElementById("samples-show").addEventListener("click", () => {
    gate.hidden = true;
    list.hidden = false;
    for (const prompt of all(".prompt", list)) prompt.scrollTop = prompt.scrollHeight; // the question is at its end
    apply();
    filter.focus();
  });
});
