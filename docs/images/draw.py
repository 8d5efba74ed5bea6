"""Draws the three diagrams of the explanation pages."""
from pathlib import Path
INK, TEAL, ROSE, AMBER, GREY = "#22303c", "#1f7a8c", "#c8505f", "#d99a2b", "#c3cad1"
FONT = "font-family='system-ui,sans-serif'"
def svg(w,h,body,title): 
    return (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {w} {h}' role='img' aria-label='{title}'>"
            f"<title>{title}</title><rect width='{w}' height='{h}' rx='8' fill='#ffffff'/>{body}</svg>\n")
def text(x,y,s,size=15,fill=INK,anchor="middle",weight=400):
    return f"<text x='{x}' y='{y}' {FONT} font-size='{size}' fill='{fill}' text-anchor='{anchor}' font-weight='{weight}'>{s}</text>"
def box(x,y,w,h,label,fill="#eef3f5",stroke=INK,sub=""):
    t=text(x+w/2,y+h/2+(0 if sub else 5),label,15,INK,"middle",600)
    if sub: t+=text(x+w/2,y+h/2+20,sub,12.5,"#55626d")
    return f"<rect x='{x}' y='{y}' width='{w}' height='{h}' rx='7' fill='{fill}' stroke='{stroke}' stroke-width='1.5'/>"+t
def arrow(x1,y1,x2,y2,c=INK):
    return f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='{c}' stroke-width='2' marker-end='url(#a)'/>"
DEFS=f"<defs><marker id='a' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' orient='auto'><path d='M0 0L10 5L0 10z' fill='{INK}'/></marker></defs>"
def cells(x,y,colors,size=18):
    return "".join(f"<rect x='{x+i*(size+3)}' y='{y}' width='{size}' height='{size}' rx='3' fill='{c}'/>" for i,c in enumerate(colors))
# 1: units
b=DEFS
b+=box(30,90,120,60,"conv 1")+box(270,90,120,60,"conv 2")+box(500,90,90,60,"add")+box(690,90,120,60,"conv 3")
b+=arrow(150,120,268,120)+arrow(390,120,498,120)+arrow(590,120,688,120)
b+=f"<path d='M205 120 C205 30 545 20 545 88' fill='none' stroke='{INK}' stroke-width='2' marker-end='url(#a)'/>"
b+=cells(168,132,[TEAL,AMBER,ROSE,GREY])+cells(402,132,[TEAL,AMBER,ROSE,GREY])+cells(602,132,[TEAL,AMBER,ROSE,GREY])
b+=text(210,178,"outputs of conv 1",13)+text(444,178,"outputs of conv 2",13)+text(644,178,"what conv 3 reads",13)
b+=text(30,225,"The sum adds channel by channel, so equal colours must be kept or removed together: each colour is one unit.",14.5,INK,"start")
b+=text(30,250,"Removing a unit removes rows of conv 1 and conv 2, their batch-norm entries, and columns of conv 2 and conv 3.",14.5,INK,"start")
Path("docs/images/units.svg").write_text(svg(920,275,b,"Channels that a residual sum ties together form one unit"))
# 2: rounds
b=DEFS
x=[30,195,360,525,690]; names=[("score","Fisher, image by image"),("decide","lowest loss per cost"),("cut","remove the units"),("correct","against the dense one"),("budget met?","else next round")]
for i,(n,s) in enumerate(names): b+=box(x[i],60,140,70,n,"#eef3f5" if i<4 else "#fdf3e1",INK,s)
for i in range(4): b+=arrow(x[i]+140,95,x[i+1]-2,95)
b+=f"<path d='M760 132 C760 200 100 200 100 134' fill='none' stroke='{INK}' stroke-width='2' marker-end='url(#a)'/>"
b+=text(430,205,"no: about 5 % of the cost goes in every round",14.5)
b+=text(430,32,"One round of pruning",16,INK,"middle",600)
Path("docs/images/rounds.svg").write_text(svg(860,225,b,"A round scores, decides, cuts and corrects until the budget is met"))
# 3: staircase
import math
b=DEFS+f"<line x1='70' y1='230' x2='560' y2='230' stroke='{INK}' stroke-width='1.5'/><line x1='70' y1='230' x2='70' y2='30' stroke='{INK}' stroke-width='1.5'/>"
pts=[]
for k in range(1,9):
    x0=70+(k-1)*60; x1=70+k*60; y=230-k*22
    pts += [(x0,y),(x1,y)]
b+=f"<polyline points='{' '.join(f'{x},{y}' for x,y in pts)}' fill='none' stroke='{TEAL}' stroke-width='3'/>"
b+=f"<line x1='70' y1='230' x2='550' y2='54' stroke='{ROSE}' stroke-width='2' stroke-dasharray='6 5'/>"
for k in range(0,9,2): b+=text(70+k*60,252,str(k*8),13)
b+=text(315,275,"width of a layer (channels)",14)+f"<g transform='translate(32 130) rotate(-90)'>{text(0,0,'time of the layer',14)}</g>"
b+=text(590,60,"measured: a staircase with",14,TEAL,"start")+text(590,80,"steps of one block (here 8)",14,TEAL,"start")
b+=text(590,130,"FLOPs: a straight line",14,ROSE,"start")
b+=text(590,175,"33 channels cost as much",14,INK,"start")+text(590,195,"as 40: widths between the",14,INK,"start")+text(590,215,"steps save nothing.",14,INK,"start")
Path("docs/images/staircase.svg").write_text(svg(800,290,b,"The time of a layer is a staircase over its width"))
