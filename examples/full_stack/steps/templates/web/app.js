// The page: one state, brought up to date after every answer of the service.
import { api, Refused } from "./api.js";
import { TEXTS } from "./texts.js";

const at = (id) => document.getElementById(id);
let products = [];
let cart = null;
let inputs = new Map(); // sku -> the input of its quantity

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  made.textContent = text; // Never markup: whatever a text holds, it stays text.
  made.append(...children);
  return made;
}

function money(cents) {
  return new Intl.NumberFormat("en", { style: "currency", currency: cart.currency }).format(cents / 100);
}

function quantityInput(product) {
  const input = document.createElement("input");
  Object.assign(input, { type: "number", min: 0, max: 99, value: 0 });
  input.setAttribute("aria-label", `${TEXTS.quantity}: ${product.name}`);
  input.addEventListener("change", () =>
    update(() => api.put_item(cart.cart_id, product.sku, { quantity: Number(input.value) })),
  );
  return input;
}

// The goods are laid out once: redrawing an input would take the focus from whoever types in it.
function layOutGoods() {
  inputs = new Map(products.map((product) => [product.sku, quantityInput(product)]));
  at("goods").replaceChildren(
    ...products.map(({ sku, name, price_cents }) =>
      element("li", name, element("span", money(price_cents)), inputs.get(sku)),
    ),
  );
  at("shop").hidden = false;
}

function draw() {
  at("state").textContent = cart.lines.length ? TEXTS.state_ready : TEXTS.state_empty;
  for (const [sku, input] of inputs) {
    input.value = cart.lines.find((line) => line.sku === sku)?.quantity ?? 0;
  }
  at("totals").replaceChildren(
    ...Object.entries(cart.totals).flatMap(([name, cents]) => [
      element("dt", TEXTS[name]),
      element("dd", money(cents)),
    ]),
  );
}

// Asks the service and shows its answer; a refusal is told, and everything stays as it was.
async function ask(question) {
  at("refusal").hidden = true;
  try {
    return await question();
  } catch (problem) {
    at("refusal").textContent = problem instanceof Refused ? TEXTS[problem.code] : TEXTS.offline;
    at("refusal").hidden = false;
    return null;
  }
}

async function update(question) {
  cart = (await ask(question)) ?? cart;
  draw();
}

at("apply").addEventListener("click", () => {
  const code = at("code").value.trim().toUpperCase();
  update(() => api.put_discount(cart.cart_id, { code }));
});

at("shop").addEventListener("submit", async (event) => {
  event.preventDefault();
  const order = await ask(() => api.place_order(cart.cart_id));
  if (order) {
    at("shop").hidden = true;
    at("state").textContent = `${TEXTS.state_placed} ${order.order_id}.`;
  }
});

await ask(async () => {
  products = await api.list_products();
  cart = await api.create_cart();
  layOutGoods();
  draw();
});
